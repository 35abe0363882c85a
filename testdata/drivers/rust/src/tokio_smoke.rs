//! What an application does with tokio-postgres: it prepares everything, takes everything in binary, and what is sent
//! at once is a pipeline.
use crate::{check, Result};
use futures_util::{future::join_all, future::try_join_all, stream, SinkExt, StreamExt, TryStreamExt};
use postgres_types::{FromSql, ToSql, Type};
use std::{io::Cursor, pin::pin, time::Duration};
use tokio::sync::mpsc::{unbounded_channel, UnboundedReceiver};
use tokio_postgres::binary_copy::{BinaryCopyInWriter, BinaryCopyOutStream};
use tokio_postgres::{error::SqlState, AsyncMessage, Client, Error, IsolationLevel, NoTls, SimpleQueryMessage};

const NEW: &str = "insert into customers values ($1, $2, 'x', 'DE', '2026-01-01')";
const KEYS: std::ops::RangeInclusive<i64> = 1..=20;

#[derive(Debug, Clone, PartialEq, ToSql, FromSql)]
#[postgres(name = "mood", rename_all = "lowercase")]
enum Mood {
    Sad,
    Ok,
    Happy,
}

#[derive(Debug, Clone, PartialEq, ToSql, FromSql)]
#[postgres(name = "spot")]
struct Spot {
    x: i32,
    m: Mood,
    tags: Vec<Mood>,
}

#[derive(Debug, ToSql)]
#[postgres(name = "posint")]
struct Posint(i32);

async fn connect(dsn: &str) -> Result<(Client, UnboundedReceiver<AsyncMessage>)> {
    let (client, mut connection) = tokio_postgres::connect(dsn, NoTls).await?;
    let (say, heard) = unbounded_channel();
    tokio::spawn(async move {
        let mut messages = stream::poll_fn(move |cx| connection.poll_message(cx));
        while let Some(m) = messages.next().await {
            let _ = say.send(m.expect("connection"));
        }
    });
    Ok((client, heard))
}

fn code<T>(r: std::result::Result<T, Error>) -> String {
    r.err().expect("no error").code().expect("no code").code().to_string()
}

async fn count(c: &Client, sql: &str) -> Result<i64> {
    Ok(c.query_one(sql, &[]).await?.get(0))
}

async fn added(c: &Client) -> Result<i64> {
    count(c, "select count(*) from customers where customer_id >= 950000").await
}

pub async fn run(dsn: &str) -> Result<()> {
    let (mut c, mut heard) = connect(&format!("{dsn}?application_name=rust&target_session_attrs=read-write")).await?;
    statements(&c).await?;
    pipelines(&c).await?;
    errors(&c).await?;
    transactions(&mut c).await?;
    copies_in(&c).await?;
    copies_in_transactions(&mut c).await?;
    copies_out(&c).await?;
    portals(&mut c).await?;
    types(&c).await?;
    batches(&c).await?;
    stopped(&c).await?;
    let (other, _) = connect(dsn).await?;
    c.batch_execute("listen news").await?;
    other.execute("select pg_notify('news', $1)", &[&"hello"]).await?;
    match tokio::time::timeout(Duration::from_secs(5), heard.recv()).await? {
        Some(AsyncMessage::Notification(n)) => check("notification", (n.channel(), n.payload()), ("news", "hello")),
        m => panic!("no notification, but {m:?}"),
    }
    Ok(())
}

async fn statements(c: &Client) -> Result<()> {
    let by_key = c.prepare("select customer_id from customers where customer_id = $1").await?;
    for k in KEYS {
        check(&format!("key {k}"), c.query_one(&by_key, &[&k]).await?.get::<_, i64>(0), k);
    }
    let (keys, name) = (KEYS.collect::<Vec<_>>(), c.prepare_typed("select name from customers where customer_id = any($1)", &[Type::INT8_ARRAY]).await?);
    check("keys of an array", c.query(&name, &[&keys]).await?.len(), 20);
    let rows = c.query_typed("select customer_id from customers where customer_id between $1 and $2 order by 1", &[(&1i64, Type::INT8), (&20i64, Type::INT8)]).await?;
    check("typed, over shards", rows.iter().map(|r| r.get(0)).collect::<Vec<i64>>(), &keys[..]);
    let r = c.query_one("select $1::bool, $2::int8, $3::float8, $4::text, $5::bytea, $6::int4[]", &[&true, &(1i64 << 40), &1.5f64, &"é", &&b"\x00\xff"[..], &vec![Some(1), None]]).await?;
    check("types", (r.get(0), r.get(1), r.get(2)), (true, 1i64 << 40, 1.5f64));
    check("more types", (r.get(3), r.get(4), r.get(5)), ("é", &b"\x00\xff"[..], vec![Some(1i32), None]));
    for k in 0..100 {
        let s = c.prepare(&format!("select {k}, customer_id from customers where customer_id = $1")).await?; // closed when it is dropped
        c.query_one(&s, &[&(k as i64 + 1)]).await?;
    }
    check("no row", c.query_opt(&by_key, &[&-1i64]).await?.is_none(), true);
    Ok(c.check_connection().await?)
}

// Each is a pipeline of its own for PostgreSQL: all are sent before the first is answered.
async fn pipelines(c: &Client) -> Result<()> {
    let by_key = &c.prepare("select customer_id from customers where customer_id = $1").await?;
    let rows = try_join_all((1..=200i64).map(|k| async move { c.query_one(by_key, &[&k]).await })).await?;
    check("queries at once", rows.iter().map(|r| r.get(0)).collect::<Vec<i64>>(), (1..=200).collect::<Vec<_>>());
    let texts = try_join_all(KEYS.map(|k| async move { c.query_one("select customer_id from customers where customer_id = $1", &[&k]).await })).await?;
    check("prepared at once", texts.iter().map(|r| r.get(0)).collect::<Vec<i64>>(), KEYS.collect::<Vec<_>>());
    let new = &c.prepare(NEW).await?;
    let done = join_all((0..40i64).map(|i| async move { c.execute(new, &[&(950000 + i % 30), &"p"]).await })).await; // ten are there
    check("writes at once", done.iter().filter(|r| r.is_ok()).count(), 30);
    check("rows of them", added(c).await?, 30);
    let (all, one) = (&c.prepare("delete from customers where customer_id >= $1").await?, &c.prepare("select customer_id from customers where customer_id = $1").await?);
    let (all, one, other) = tokio::join!(c.execute(all, &[&950000i64]), c.query(one, &[&950001i64]), c.query(one, &[&1i64]));
    check("over shards, then one", (all?, one?.len(), other?.len()), (30, 0, 1));
    Ok(())
}

async fn errors(c: &Client) -> Result<()> {
    let e = c.execute("insert into customers values (1, 'a', 'x', 'DE', '2026-01-01')", &[]).await.unwrap_err();
    let d = e.as_db_error().unwrap();
    check("a unique key", (d.code(), d.table(), d.constraint()), (&SqlState::UNIQUE_VIOLATION, Some("customers"), Some("customers_pkey")));
    check("a foreign key", code(c.execute("insert into customers values ($1, 'a', 'x', 'XX', '2026-01-01')", &[&950000i64]).await), "23503");
    let e = c.prepare("select customer_id form customers").await.err().unwrap();
    check("a place", format!("{:?}", e.as_db_error().unwrap().position()), "Some(Original(25))");
    check("no table", code(c.query("select * from nothing", &[]).await), "42P01");
    check("division", code(c.query("select 1 / $1::int", &[&0]).await), "22012");
    check("over shards", code(c.query("select 1 / (customer_id - 7) from customers", &[]).await), "22012");
    check("goes on", count(c, "select count(*) from customers where customer_id = 1").await?, 1);
    Ok(())
}

async fn transactions(c: &mut Client) -> Result<()> {
    let new = c.prepare(NEW).await?;
    let mut tx = c.transaction().await?;
    let done = try_join_all((0..10i64).map(|i| { let (tx, new) = (&tx, &new); async move { tx.execute(new, &[&(950000 + i), &"t"]).await } })).await?;
    check("writes at once in a transaction", done.iter().sum::<u64>(), 10);
    let sp = tx.savepoint("here").await?;
    check("an error", code(sp.execute(&new, &[&1i64, &"there already"]).await), "23505");
    check("a failed transaction", code(sp.query("select 1", &[]).await), "25P02");
    sp.rollback().await?;
    let inner = tx.transaction().await?;
    inner.execute("delete from customers where customer_id >= 950005", &[]).await?;
    inner.commit().await?;
    {
        let dropped = tx.transaction().await?;
        dropped.execute("delete from customers where customer_id >= 950000", &[]).await?;
    }
    tx.commit().await?;
    check("committed", added(c).await?, 5);
    {
        let tx = c.transaction().await?;
        tx.execute("delete from customers where customer_id >= 950000", &[]).await?;
    }
    check("a dropped transaction", added(c).await?, 5);
    let tx = c.transaction().await?;
    check("deleted", tx.execute("delete from customers where customer_id >= 950000", &[]).await?, 5);
    tx.rollback().await?;
    check("rolled back", added(c).await?, 5);
    let tx = c.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true).start().await?;
    check("read only", code(tx.execute(&new, &[&950100i64, &"t"]).await), "25006");
    tx.rollback().await?;
    check("deleted", c.execute("delete from customers where customer_id >= 950000", &[]).await?, 5);
    Ok(())
}

fn line(k: i64) -> String {
    format!("{k}\tc\tx\tDE\t2026-01-01\n")
}

async fn copies_in(c: &Client) -> Result<()> {
    let mut sink = pin!(c.copy_in::<_, Cursor<String>>("copy customers from stdin").await?);
    for k in 950000..951000 {
        sink.feed(Cursor::new(line(k))).await?;
    }
    check("copy in", sink.finish().await?, 1000);
    check("its rows", added(c).await?, 1000);
    let spot = c.prepare("select m, ms, s, p from moods").await?; // the types of its columns
    let types: Vec<Type> = std::iter::once(Type::INT8).chain(spot.columns().iter().map(|c| c.type_().clone())).collect();
    let mut writer = pin!(BinaryCopyInWriter::new(c.copy_in("copy moods (customer_id, m, ms, s, p) from stdin (format binary)").await?, &types));
    for k in 950000..950100i64 {
        let spot = Spot { x: k as i32, m: Mood::Sad, tags: vec![Mood::Ok, Mood::Happy] };
        writer.as_mut().write(&[&k, &Mood::Happy, &vec![Mood::Sad], &spot, &7i32]).await?;
    }
    check("binary copy in", writer.finish().await?, 100);
    let wrong = "x\tx\ty\tDE\t2026-01-01\n";
    let many: String = (960000..980000).map(line).collect();
    for (what, rows, want) in [("a key that is there", line(960000) + &line(5), "23505"), ("a wrong key", line(960000) + wrong, "22P02"), ("a short row", line(960000) + "960001\n", "22P04"), ("a wrong row before many", line(960000) + wrong + &many, "22P02")] {
        let mut sink = pin!(c.copy_in::<_, Cursor<String>>("copy customers from stdin").await?);
        sink.send(Cursor::new(rows)).await?;
        check(what, code(sink.finish().await), want);
        check("goes on", added(c).await?, 1000);
    }
    {
        let mut sink = pin!(c.copy_in::<_, Cursor<String>>("copy customers from stdin").await?);
        sink.send(Cursor::new(line(960000))).await?;
    }
    check("a dropped sink", added(c).await?, 1000);
    Ok(())
}

async fn copies_in_transactions(c: &mut Client) -> Result<()> {
    let mut tx = c.transaction().await?;
    tx.execute("update customers set name = 'zz' where customer_id = 950001", &[]).await?;
    let mut sink = pin!(tx.copy_in::<_, Cursor<String>>("copy customers from stdin").await?);
    sink.send(Cursor::new((960000..960100).map(line).collect())).await?;
    check("copy in a transaction", sink.finish().await?, 100);
    let sp = tx.transaction().await?;
    {
        let mut sink = pin!(sp.copy_in::<_, Cursor<String>>("copy customers from stdin").await?);
        sink.send(Cursor::new(line(970000) + &line(970001) + &line(950000))).await?;
        check("a key that is there", code(sink.finish().await), "23505");
    }
    sp.rollback().await?;
    check("what it sees", tx.query_one("select count(*) from customers where customer_id >= 950000", &[]).await?.get::<_, i64>(0), 1100);
    tx.rollback().await?;
    check("rolled back", added(c).await?, 1000);
    let tx = c.transaction().await?;
    {
        let mut sink = pin!(tx.copy_in::<_, Cursor<String>>("copy customers from stdin").await?);
        sink.send(Cursor::new((960000..960100).map(line).collect())).await?;
    }
    check("behind a dropped sink", code(tx.query("select 1", &[]).await), "25P02");
    drop(tx);
    check("still", added(c).await?, 1000);
    Ok(())
}

async fn copies_out(c: &Client) -> Result<()> {
    let out = c.copy_out("copy (select customer_id, name from customers where customer_id >= 950000) to stdout").await?;
    let bytes = out.try_fold(Vec::new(), |mut all, b| async move { all.extend_from_slice(&b); Ok(all) }).await?;
    check("copy out", bytes.iter().filter(|b| **b == b'\n').count(), 1000);
    let rows = c.query("select customer_id, s from moods where customer_id = $1", &[&950007i64]).await?;
    let types: Vec<Type> = rows[0].columns().iter().map(|c| c.type_().clone()).collect();
    let out = c.copy_out("copy moods (customer_id, s) to stdout (format binary)").await?;
    let rows: Vec<_> = BinaryCopyOutStream::new(out, &types).try_collect().await?;
    check("binary copy out", rows.len(), 100);
    check("its values", rows.iter().all(|r| r.get::<Spot>(1).x as i64 == r.get::<i64>(0)), true);
    {
        let mut out = pin!(c.copy_out("copy customers to stdout").await?);
        out.next().await.unwrap()?; // the rest is thrown away
    }
    check("copy out, no table", code(c.copy_out("copy nothing to stdout").await), "42P01");
    check("goes on", c.execute("delete from moods where customer_id >= 950000", &[]).await?, 100);
    Ok(())
}

async fn portals(c: &mut Client) -> Result<()> {
    let stream = |from: i64| { let c = &*c; async move { c.query_raw("select customer_id from customers where customer_id >= $1", [from]).await?.try_fold(0, |n, _| async move { Ok(n + 1) }).await } };
    check("streams over shards", try_join_all([stream(950000), stream(950500)]).await?, [1000, 500]);
    {
        let mut rows = pin!(c.query_raw("select repeat('x', 1000) from generate_series(1, 20000)", [0i32; 0]).await?);
        rows.try_next().await?;
    }
    check("a dropped stream", added(c).await?, 1000);
    let all = c.prepare("select customer_id from customers where customer_id >= $1 order by customer_id").await?;
    let tx = c.transaction().await?;
    let (one, two) = (tx.bind(&all, &[&950000i64]).await?, tx.bind(&all, &[&950500i64]).await?);
    let (mut a, mut b) = (vec![], vec![]);
    for _ in 0..11 {
        a.extend(tx.query_portal(&one, 100).await?.iter().map(|r| r.get::<_, i64>(0)));
        b.extend(tx.query_portal(&two, 70).await?.iter().map(|r| r.get::<_, i64>(0)));
        tx.execute("update customers set name = 'portal' where customer_id = $1", &[&(950000 + a.len() as i64 - 1)]).await?;
    }
    check("a portal", a, (950000..951000).collect::<Vec<i64>>());
    check("another beside it", b, (950500..951000).collect::<Vec<i64>>());
    let place = tx.bind("select name from customers where customer_id = $1", &[&950099i64]).await?;
    check("of one shard", tx.query_portal(&place, 0).await?[0].get::<_, String>(0), "portal");
    let rows = tx.query_portal_raw(&tx.bind("select generate_series(1, 1000)", &[]).await?, 10).await?;
    check("its stream", rows.try_collect::<Vec<_>>().await?.len(), 10);
    tx.commit().await?;
    check("deleted", c.execute("delete from customers where customer_id >= 950000", &[]).await?, 1000);
    Ok(())
}

async fn types(c: &Client) -> Result<()> {
    let new = c.prepare("insert into moods (customer_id, m, ms, s, ss, p) values ($1, $2, $3, $4, $5, $6)").await?;
    let spot = |x| Spot { x, m: Mood::Ok, tags: vec![Mood::Sad, Mood::Happy] };
    for k in 1..=8i64 {
        c.execute(&new, &[&k, &Mood::Happy, &vec![Mood::Sad, Mood::Ok], &spot(k as i32), &vec![spot(1), spot(2)], &Posint(3)]).await?;
    }
    for k in 1..=8i64 {
        let r = c.query_one("select m, ms, s, ss, p from moods where customer_id = $1", &[&k]).await?;
        check("types of users", (r.get(0), r.get(1), r.get(2)), (Mood::Happy, vec![Mood::Sad, Mood::Ok], spot(k as i32)));
        check("arrays of them", (r.get(3), r.get(4)), (vec![spot(1), spot(2)], 3i32));
    }
    c.clear_type_cache();
    let rows = c.query("select customer_id, m, s from moods where m = $1 and ms @> $2 order by 1", &[&Mood::Happy, &vec![Mood::Ok]]).await?;
    check("over shards", rows.iter().map(|r| (r.get(1), r.get::<_, Spot>(2).x as i64 - r.get::<_, i64>(0))).collect::<Vec<_>>(), vec![(Mood::Happy, 0); 8]);
    check("deleted", c.execute("delete from moods where m = any($1)", &[&vec![Mood::Happy]]).await?, 8);
    Ok(())
}

async fn batches(c: &Client) -> Result<()> {
    let rows = |from: i64| (from..from + 4).map(|k| format!("insert into customers values ({k}, 'b', 'x', 'DE', '2026-01-01');")).collect::<String>();
    c.batch_execute(&rows(950000)).await?;
    check("a batch over shards", added(c).await?, 4);
    check("a batch that fails", code(c.batch_execute(&(rows(950010) + &rows(950000))).await), "23505");
    check("leaves nothing", added(c).await?, 4);
    c.batch_execute(&format!("begin; {} savepoint a; delete from customers where customer_id >= 950000; rollback to a; commit", rows(950010))).await?;
    check("a transaction in a batch", added(c).await?, 8);
    let said = c.simple_query("select customer_id from customers where customer_id between 950000 and 950003; delete from customers where customer_id >= 950000").await?;
    check("a simple query's rows", said.iter().filter(|m| matches!(m, SimpleQueryMessage::Row(_))).count(), 4);
    check("and what it did", matches!(said.last(), Some(SimpleQueryMessage::CommandComplete(8))), true);
    c.batch_execute("create temp table tt (k bigint, v text); insert into tt values (1, 'a')").await?;
    check("a temporary table", c.query("select v from tt where k = $1", &[&1i64]).await?.len(), 1);
    Ok(c.batch_execute("drop table tt").await?)
}

async fn stopped(c: &Client) -> Result<()> {
    for (what, sql) in [("cancel", "select pg_sleep(20)"), ("cancel over shards", "select count(pg_sleep(20)) from customers")] {
        let token = c.cancel_token();
        let (slept, _) = tokio::join!(c.query(sql, &[]), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            token.cancel_query(NoTls).await.unwrap()
        });
        check(what, code(slept), "57014");
        check("goes on", count(c, "select count(*) from customers where customer_id between 1 and 20").await?, 20);
    }
    Ok(())
}
