"""What an application does with psycopg 3. The shop's DSN is the first argument; any failure is an exception."""
import decimal, json, sys, threading, time, uuid
import psycopg
from psycopg.types.hstore import register_hstore
from psycopg.types.json import Jsonb

dsn = sys.argv[1]


def check(what, got, want):
    if got != want:
        raise AssertionError(f"{what}: {got!r}, want {want!r}")
    print("ok", what)


with psycopg.connect(dsn, autocommit=True, prepare_threshold=2) as c:
    for k in (1, 2, 3, 4, 5, 6, 7, 8):
        for _ in range(4):  # prepared from the third time on
            check(f"key {k}", c.execute("select customer_id from customers where customer_id = %s", (k,)).fetchone()[0], k)
    values = (True, 7, 2**40, 1.5, decimal.Decimal("12.340"), "é", b"\x00\xff", uuid.UUID(int=5), [1, None, 3], Jsonb({"a": [1]}))
    row = c.execute("select %b::bool, %b::int4, %b::int8, %b::float8, %b::numeric, %b::text, %b::bytea, %b::uuid, %b::int4[], %b::jsonb", values, binary=True).fetchone()
    check("binary types", row[:9], values[:9])
    check("jsonb", row[9], {"a": [1]})
    with c.pipeline() as p:
        cur = [c.execute("select customer_id from customers where customer_id = %s", (k,)) for k in range(1, 21)]
        p.sync()
        check("pipeline over shards", [x.fetchone()[0] for x in cur], list(range(1, 21)))
    try:
        with c.pipeline():
            c.execute("insert into customers values (900001, 'a', 'x', 'DE', '2026-01-01')")
            c.execute("select 1/0")
    except psycopg.errors.DivisionByZero:
        pass
    check("a failed pipeline leaves nothing", c.execute("select count(*) from customers where customer_id = 900001").fetchone()[0], 0)
    with c.cursor() as cur:
        cur.executemany("insert into customers values (%s, %s, 'x', 'DE', '2026-01-01')", [(910000 + i, f"n{i}") for i in range(50)])
    check("executemany", c.execute("select count(*) from customers where customer_id between 910000 and 910049 and name like %s", ("n%",)).fetchone()[0], 50)
    c.execute("delete from customers where customer_id >= 910000 and customer_id < 910050")
    with c.cursor() as cur:
        with cur.copy("copy customers from stdin") as copy:
            for i in range(100):
                copy.write_row((920000 + i, "c", "x", "DE", "2026-01-01"))
        with cur.copy("copy (select customer_id from customers where customer_id = 920007) to stdout") as copy:
            check("copy out", bytes(b"".join(copy)), b"920007\n")
    check("copy in", c.execute("select count(*) from customers where customer_id between 920000 and 920099").fetchone()[0], 100)
    c.execute("delete from customers where customer_id between 920000 and 920099")
    try:
        with c.transaction():
            c.execute("update customers set name = 'zz' where customer_id = 1")
            with c.transaction():
                c.execute("select 1/0")
    except psycopg.errors.DivisionByZero:
        pass
    check("a failed transaction", c.execute("select count(*) from customers where customer_id = 1 and name = 'zz'").fetchone()[0], 0)
    timer = threading.Timer(0.3, c.cancel_safe)
    timer.start()
    try:
        c.execute("select pg_sleep(20)")
        raise AssertionError("not cancelled")
    except psycopg.errors.QueryCanceled:
        print("ok cancel")
    timer.join()
    c.execute("listen news")
    with psycopg.connect(dsn, autocommit=True) as other:
        other.execute("notify news, 'hello'")
    check("notification", [n.payload for n in c.notifies(timeout=5, stop_after=1)], ["hello"])
    check("a big result", sum(len(r[0]) for r in c.execute("select repeat('x', 1000) from generate_series(1, 50000)", binary=True)), 50_000_000)
    with c.transaction():
        with c.cursor("named") as cur:
            cur.execute("select generate_series(1, 1000)")
            check("server-side cursor", len(cur.fetchmany(10)) + len(cur.fetchall()), 1000)
print("done")
