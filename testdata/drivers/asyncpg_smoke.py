"""What an application does with asyncpg: it prepares everything and takes everything in binary."""
import asyncio, decimal, sys, uuid
import asyncpg

dsn = sys.argv[1]


def check(what, got, want):
    if got != want:
        raise AssertionError(f"{what}: {got!r}, want {want!r}")
    print("ok", what)


async def main():
    c = await asyncpg.connect(dsn)
    st = await c.prepare("select customer_id, name from customers where customer_id = $1")
    for k in range(1, 21):
        check(f"key {k}", (await st.fetchrow(k))["customer_id"], k)
    values = (True, 7, 2**40, 1.5, decimal.Decimal("12.340"), "é", b"\x00\xff", uuid.UUID(int=5), [1, None, 3])
    row = await c.fetchrow("select $1::bool, $2::int4, $3::int8, $4::float8, $5::numeric, $6::text, $7::bytea, $8::uuid, $9::int4[]", *values)
    check("binary types", tuple(row.values()), values)
    await c.executemany("insert into customers values ($1, $2, 'x', 'DE', '2026-01-01')", [(930000 + i, "a") for i in range(1)])
    await c.execute("delete from customers where customer_id = 930000")
    try:
        async with c.transaction():
            await c.execute("update customers set name = 'zz' where customer_id = $1", 1)
            async with c.transaction():
                await c.execute("select 1/0")
    except asyncpg.DivisionByZeroError:
        pass
    check("a failed transaction", await c.fetchval("select count(*) from customers where customer_id = 1 and name = 'zz'"), 0)
    async with c.transaction():
        n = 0
        async for r in c.cursor("select generate_series(1, 500)", prefetch=50):
            n += 1
        check("cursor", n, 500)
        cur = await c.cursor("select customer_id from customers where customer_id between 1 and 100 order by customer_id")
        check("cursor over shards", [r[0] for r in await cur.fetch(30)], list(range(1, 31)))
        check("cursor over shards, on", [r[0] for r in await cur.fetch(100)], list(range(31, 101)))
    try:
        await asyncio.wait_for(c.execute("select pg_sleep(20)"), 0.3)
        raise AssertionError("not cancelled")
    except asyncio.TimeoutError:
        print("ok cancel")
    check("after the cancel", await c.fetchval("select 1"), 1)
    heard = asyncio.Queue()
    await c.add_listener("news", lambda con, pid, ch, payload: heard.put_nowait(payload))
    other = await asyncpg.connect(dsn)
    await other.execute("notify news, 'hello'")
    check("notification", await asyncio.wait_for(heard.get(), 5), "hello")
    await c.remove_listener("news", lambda *a: None) if False else None
    rows = await c.fetch("select repeat('x', 1000) as x from generate_series(1, 20000)")
    check("a big result", sum(len(r["x"]) for r in rows), 20_000_000)
    await c.execute("create temp table ct (a int, b text)")
    check("copy in", await c.copy_records_to_table("ct", records=[(i, str(i)) for i in range(1000)]), "COPY 1000")
    await c.execute("drop table ct")
    # Enums and composites have home's OIDs on every shard.
    for k in range(1, 9):
        await c.execute("insert into moods (customer_id, m, ms, s) values ($1, $2, $3, $4)", k, "happy", ["sad", "ok"], (7, "sad", ["ok"]))
    for k in range(1, 9):
        r = await c.fetchrow("select m, ms, s from moods where customer_id = $1", k)
        check(f"user types of key {k}", (r["m"], r["ms"], tuple(r["s"])), ("happy", ["sad", "ok"], (7, "sad", ["ok"])))
    rows = await c.fetch("select customer_id, m, ms, s from moods order by customer_id")
    check("user types over shards", [(r["customer_id"], r["m"], r["s"]["tags"]) for r in rows], [(k, "happy", ["ok"]) for k in range(1, 9)])
    await c.execute("delete from moods where m = $1", "happy")
    await c.reset()
    await c.close()
    pool = await asyncpg.create_pool(dsn, min_size=5, max_size=10)
    check("pool", sum(await asyncio.gather(*[pool.fetchval("select $1::int", i) for i in range(100)])), 4950)
    await pool.close()
    await other.close()


asyncio.run(main())
print("done")
