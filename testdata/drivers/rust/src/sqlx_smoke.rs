//! What an application does with sqlx: its statements are prepared and kept, its pool looks at each connection.
use crate::{check, Result};
use futures_util::{future::try_join_all, TryStreamExt};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgAdvisoryLock, PgConnectOptions, PgConnection, PgListener, PgPool, PgPoolCopyExt, PgPoolOptions};
use sqlx::{query, query_as, query_scalar, Acquire, Connection, Executor, FromRow, QueryBuilder, Row};
use std::{path::Path, str::FromStr, time::Duration};

const BY_KEY: &str = "select customer_id, name from customers where customer_id = $1";
const NEW: &str = "insert into customers values ($1, $2, 'x', 'DE', '2026-01-01')";

#[derive(Debug, PartialEq, FromRow)]
struct Customer {
    customer_id: i64,
    name: String,
}

#[derive(Debug, Clone, PartialEq, sqlx::Type)]
#[sqlx(type_name = "mood", rename_all = "lowercase")]
enum Mood {
    Sad,
    Ok,
    Happy,
}

#[derive(Debug, Clone, PartialEq, sqlx::Type)]
#[sqlx(type_name = "spot")]
struct Spot {
    x: i32,
    m: Mood,
    tags: Vec<Mood>,
}

fn code<T>(r: sqlx::Result<T>) -> String {
    r.err().expect("no error").as_database_error().expect("not the database's").code().expect("no code").to_string()
}

async fn added(pool: &PgPool) -> Result<i64> {
    Ok(query_scalar("select count(*) from customers where customer_id >= 950000").fetch_one(pool).await?)
}

pub async fn run(dsn: &str) -> Result<()> {
    for kept in [100, 0, 3] {
        println!("with {kept} statements kept");
        let options = PgConnectOptions::from_str(dsn)?.statement_cache_capacity(kept).application_name("sqlx").options([("lock_timeout", "10s")]);
        let pool = PgPoolOptions::new().max_connections(5).min_connections(2).connect_with(options).await?;
        statements(&pool).await?;
        errors(&pool).await?;
        transactions(&pool).await?;
        copies(&pool).await?;
        streams(&pool).await?;
        types(&pool).await?;
        pool.close().await;
    }
    let pool = PgPool::connect(dsn).await?;
    notifications(&pool).await?;
    migrations(&pool).await?;
    stopped(&pool).await?;
    pool.close().await;
    let mut c = PgConnection::connect(dsn).await?;
    described(&mut c).await?;
    Ok(c.close().await?)
}

async fn statements(pool: &PgPool) -> Result<()> {
    for k in 1..=20i64 {
        check("key", query_as::<_, Customer>(BY_KEY).bind(k).fetch_one(pool).await?.customer_id, k);
    }
    let rows: Vec<(i64,)> = try_join_all((1..=50i64).map(|k| query_as("select customer_id from customers where customer_id = $1").bind(k).fetch_one(pool))).await?;
    check("at once", rows.iter().map(|r| r.0).collect::<Vec<_>>(), (1..=50).collect::<Vec<_>>());
    check("not kept", query(BY_KEY).bind(7i64).persistent(false).fetch_one(pool).await?.get::<i64, _>("customer_id"), 7);
    check("no row", query(BY_KEY).bind(-1i64).fetch_optional(pool).await?.is_none(), true);
    let keys: Vec<i64> = (1..=20).collect();
    check("keys of an array", query_as::<_, Customer>("select * from customers where customer_id = any($1) order by customer_id").bind(&keys).fetch_all(pool).await?.len(), 20);
    let names: Vec<String> = (0..100).map(|i| format!("n{i}")).collect();
    let sql = "insert into customers select k, n, 'x', 'DE', '2026-01-01' from unnest($1::bigint[], $2::text[]) as t (k, n)";
    check("rows of arrays", query(sql).bind((950000..950100).collect::<Vec<i64>>()).bind(&names).execute(pool).await?.rows_affected(), 100);
    let mut b = QueryBuilder::new("insert into customers (customer_id, name, email, country, created_at) ");
    b.push_values(950100..950200i64, |mut b, k| { b.push_bind(k).push_bind("b").push_bind("x").push_bind("DE").push("now()"); });
    check("rows of VALUES", b.build().execute(pool).await?.rows_affected(), 100);
    check("they are there", added(pool).await?, 200);
    let sql = "insert into customers values ($1, $2, 'x', 'DE', '2026-01-01') on conflict (customer_id) do update set name = excluded.name returning name";
    check("upsert", query_scalar::<_, String>(sql).bind(950001i64).bind("new").fetch_one(pool).await?, "new");
    let many = "update customers set email = 'y' where customer_id >= 950000; delete from customers where customer_id >= 950100; select count(*) from customers where customer_id >= 950000";
    check("several at once", sqlx::raw_sql(many).fetch_one(pool).await?.get::<i64, _>(0), 100);
    check("deleted", query("delete from customers where customer_id >= $1").bind(950000i64).execute(pool).await?.rows_affected(), 100);
    Ok(())
}

async fn errors(pool: &PgPool) -> Result<()> {
    let e = query(NEW).bind(1i64).bind("a").execute(pool).await.unwrap_err();
    let d = e.as_database_error().unwrap();
    check("a unique key", (d.is_unique_violation(), d.table(), d.constraint()), (true, Some("customers"), Some("customers_pkey")));
    check("a foreign key", code(query("insert into customers values ($1, 'a', 'x', 'XX', now())").bind(950000i64).execute(pool).await), "23503");
    check("no table", code(query("select * from nothing").fetch_all(pool).await), "42P01");
    check("over shards", code(query("select 1 / (customer_id - $1) from customers").bind(7i64).fetch_all(pool).await), "22012");
    Ok(())
}

async fn transactions(pool: &PgPool) -> Result<()> {
    let mut tx = pool.begin().await?;
    for k in 950000..950010i64 {
        query(NEW).bind(k).bind("t").execute(&mut *tx).await?;
    }
    let mut inner = tx.begin().await?;
    check("an error", code(query(NEW).bind(1i64).bind("t").execute(&mut *inner).await), "23505");
    check("a failed transaction", code(query("select 1").execute(&mut *inner).await), "25P02");
    inner.rollback().await?;
    let mut inner = tx.begin().await?;
    query("delete from customers where customer_id >= $1").bind(950005i64).execute(&mut *inner).await?;
    inner.commit().await?;
    drop(tx.begin().await?);
    tx.commit().await?;
    check("committed", added(pool).await?, 5);
    let mut tx = pool.begin().await?;
    query("delete from customers where customer_id >= $1").bind(950000i64).execute(&mut *tx).await?;
    drop(tx);
    check("dropped", added(pool).await?, 5);
    let mut tx = pool.begin_with("begin isolation level repeatable read read only").await?;
    check("read only", code(query(NEW).bind(950100i64).bind("t").execute(&mut *tx).await), "25006");
    tx.rollback().await?;
    check("deleted", query("delete from customers where customer_id >= $1").bind(950000i64).execute(pool).await?.rows_affected(), 5);
    Ok(())
}

async fn copies(pool: &PgPool) -> Result<()> {
    let rows = |keys: std::ops::Range<i64>| keys.map(|k| format!("{k}\tc\tx\tDE\t2026-01-01\n")).collect::<String>().into_bytes();
    let mut c = pool.acquire().await?;
    let mut copy = c.copy_in_raw("copy customers from stdin").await?;
    copy.send(rows(950000..950500)).await?.send(rows(950500..951000)).await?;
    check("copy in", copy.finish().await?, 1000);
    let mut copy = c.copy_in_raw("copy customers from stdin").await?;
    copy.send(rows(1..2)).await?;
    check("a key that is there", code(copy.finish().await), "23505");
    let mut copy = c.copy_in_raw("copy customers from stdin").await?;
    copy.send(rows(960000..960100)).await?;
    copy.abort("enough").await?;
    check("goes on", query_scalar::<_, i64>("select count(*) from customers where customer_id >= 950000").fetch_one(&mut *c).await?, 1000);
    let mut tx = c.begin().await?;
    let mut copy = tx.copy_in_raw("copy customers from stdin").await?;
    copy.send(rows(960000..960100)).await?;
    check("copy in a transaction", copy.finish().await?, 100);
    query(NEW).bind(960100i64).bind("t").execute(&mut *tx).await?;
    tx.rollback().await?;
    let out: Vec<_> = c.copy_out_raw("copy (select * from customers where customer_id >= 950000) to stdout").await?.try_collect().await?;
    check("copy out", out.iter().map(|b| b.iter().filter(|b| **b == b'\n').count()).sum::<usize>(), 1000);
    drop(c);
    let out: Vec<_> = pool.copy_out_raw("copy (select 1) to stdout").await?.try_collect().await?;
    check("copy out of the pool", out.concat(), b"1\n");
    Ok(())
}

async fn streams(pool: &PgPool) -> Result<()> {
    let mut c = pool.acquire().await?;
    let n = query_as::<_, Customer>("select * from customers where customer_id >= $1").bind(950000i64).fetch(&mut *c).try_fold(0, |n, _| async move { Ok(n + 1) }).await?;
    check("a stream over shards", n, 1000);
    check("dropped", query("select repeat('x', 1000) from customers").fetch(&mut *c).try_next().await?.is_some(), true);
    check("one of many", query_scalar::<_, i64>("select customer_id from customers where customer_id >= 950000 order by 1").fetch_one(&mut *c).await?, 950000);
    check("goes on", query("delete from customers where customer_id >= $1").bind(950000i64).execute(&mut *c).await?.rows_affected(), 1000);
    Ok(())
}

async fn types(pool: &PgPool) -> Result<()> {
    let spot = |x| Spot { x, m: Mood::Ok, tags: vec![Mood::Sad, Mood::Happy] };
    for k in 1..=8i64 {
        query("insert into moods (customer_id, m, ms, s, p) values ($1, $2, $3, $4, $5)").bind(k).bind(Mood::Happy).bind(vec![Mood::Sad, Mood::Ok]).bind(spot(k as i32)).bind(3i32).execute(pool).await?;
    }
    type Moods = Vec<(i64, Mood, Vec<Mood>, Spot)>;
    let want: Moods = (1..=8).map(|k| (k, Mood::Happy, vec![Mood::Sad, Mood::Ok], spot(k as i32))).collect();
    let all: Moods = query_as("select customer_id, m, ms, s from moods where m = $1 order by 1").bind(Mood::Happy).fetch_all(pool).await?;
    check("types of users", all, &want[..]);
    for k in 1..=8i64 {
        let one: Moods = query_as("select customer_id, m, ms, s from moods where customer_id = $1").bind(k).fetch_all(pool).await?;
        check("of a key", one, &want[k as usize - 1..k as usize]);
    }
    check("deleted", query("delete from moods where m = any($1)").bind(vec![Mood::Happy]).execute(pool).await?.rows_affected(), 8);
    Ok(())
}

async fn notifications(pool: &PgPool) -> Result<()> {
    let mut heard = PgListener::connect_with(pool).await?;
    heard.listen_all(["news", "olds"]).await?;
    heard.unlisten("olds").await?;
    query("select pg_notify('olds', 'nobody'), pg_notify('news', $1)").bind("hello").execute(pool).await?;
    let n = tokio::time::timeout(Duration::from_secs(5), heard.recv()).await??;
    check("notification", (n.channel(), n.payload()), ("news", "hello"));
    let mut tx = pool.begin().await?;
    query(NEW).bind(950000i64).bind("n").execute(&mut *tx).await?;
    query("notify news, 'later'").execute(&mut *tx).await?;
    tx.rollback().await?;
    query("notify news, 'last'").execute(pool).await?;
    check("of no transaction that is rolled back", tokio::time::timeout(Duration::from_secs(5), heard.recv()).await??.payload(), "last");
    Ok(heard.unlisten_all().await?)
}

async fn migrations(pool: &PgPool) -> Result<()> {
    let folder = Migrator::new(Path::new("drivers/rust/migrations")).await?;
    let first = Migrator { migrations: folder.iter().take(1).cloned().collect(), ..Migrator::DEFAULT };
    try_join_all((0..3).map(|_| first.run(pool))).await?; // one at a time: each takes the advisory lock
    folder.run(pool).await?;
    check("migrated", query_scalar::<_, i64>("select card_count()").fetch_one(pool).await?, 2);
    folder.undo(pool, 1).await?;
    folder.run(pool).await?;
    folder.undo(pool, 0).await?;
    check("undone", query_scalar::<_, i64>("select count(*) from _sqlx_migrations").fetch_one(pool).await?, 0);
    query("drop table _sqlx_migrations").execute(pool).await?;
    let lock = PgAdvisoryLock::new("drivers");
    let held = lock.acquire(pool.acquire().await?).await?;
    check("a lock that is held", lock.try_acquire(pool.acquire().await?).await?.is_right(), true);
    held.release_now().await?;
    check("and is free", lock.try_acquire(pool.acquire().await?).await?.is_left(), true);
    Ok(())
}

// A future that is dropped leaves a connection amid an answer.
async fn stopped(pool: &PgPool) -> Result<()> {
    for sql in ["select pg_sleep(0.3)", "select count(pg_sleep(0.0001)) from customers"] {
        let stopped = tokio::time::timeout(Duration::from_millis(50), query(sql).execute(pool)).await;
        check("not waited for", stopped.is_err(), true);
    }
    check("the pool goes on", query_scalar::<_, i64>("select count(*) from customers where customer_id = 1").fetch_one(pool).await?, 1);
    Ok(())
}

// What the macros do when an application is compiled, here for a table of home: see docs/compatibility.md.
async fn described(c: &mut PgConnection) -> Result<()> {
    let d = c.describe("select name, value from settings where name = $1").await?;
    check("described", (d.columns.len(), d.nullable), (2, vec![Some(false), Some(true)]));
    Ok(())
}
