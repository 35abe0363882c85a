//! What an application does with diesel, by diesel-async: statements are prepared and kept, what is polled together is a pipeline.
use crate::{check, Result};
use diesel::result::{DatabaseErrorKind, Error};
use diesel::{pg::data_types::PgTimestamp, prelude::*, sql_types::BigInt, upsert::excluded};
use diesel_async::pooled_connection::{bb8::Pool, AsyncDieselConnectionManager};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use futures_util::{future::try_join_all, TryStreamExt};

diesel::table! {
    customers (customer_id) {
        customer_id -> BigInt,
        name -> Text,
        email -> Text,
        country -> Text,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    orders (customer_id, order_id) {
        customer_id -> BigInt,
        order_id -> BigInt,
        status -> Text,
    }
}

diesel::allow_tables_to_appear_in_same_query!(customers, orders);

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Insertable, AsChangeset, Identifiable)]
#[diesel(table_name = customers, primary_key(customer_id))]
struct Customer {
    customer_id: i64,
    name: String,
    email: String,
    country: String,
    created_at: PgTimestamp,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

fn customer(k: i64) -> Customer {
    Customer { customer_id: k, name: format!("n{k}"), email: "x".into(), country: "DE".into(), created_at: PgTimestamp(k) }
}

async fn added(c: &mut AsyncPgConnection) -> Result<i64> {
    Ok(customers::table.filter(customers::customer_id.ge(950000)).count().get_result(c).await?)
}

pub async fn run(dsn: &str) -> Result<()> {
    let c = &mut AsyncPgConnection::establish(dsn).await?;
    c.batch_execute("create temp table warm (x int); drop table warm").await?;
    for k in 1..=20i64 {
        let found: Customer = customers::table.find(k).select(Customer::as_select()).first(c).await?;
        check("key", found.customer_id, k);
    }
    writes(c).await?;
    transactions(c).await?;
    let pool = &Pool::builder().max_size(5).build(AsyncDieselConnectionManager::<AsyncPgConnection>::new(dsn)).await?;
    let found = try_join_all((1..=50i64).map(|k| async move {
        let mut c = pool.get().await.expect("the pool");
        customers::table.find(k).select(customers::customer_id).first::<i64>(&mut c).await
    }));
    check("pool", found.await?, (1..=50).collect::<Vec<_>>());
    Ok(())
}

async fn writes(c: &mut AsyncPgConnection) -> Result<()> {
    let new: Vec<_> = (950000..950100).map(customer).collect();
    check("insert", diesel::insert_into(customers::table).values(&new).execute(c).await?, 100);
    let there = diesel::insert_into(customers::table).values(customer(1)).execute(c).await;
    check("a unique key", matches!(there, Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _))), true);
    let mut changed = customer(950001);
    changed.name = "new".into();
    let upsert = diesel::insert_into(customers::table).values(&changed).on_conflict(customers::customer_id).do_update().set(customers::name.eq(excluded(customers::name)));
    check("upsert", upsert.returning(customers::name).get_result::<String>(c).await?, "new");
    check("save", diesel::update(&changed).set(&changed).execute(c).await?, 1);
    let (one, two): (Customer, Customer) = (customers::table.find(950001).first(c).await?, customers::table.find(950002).first(c).await?);
    check("found", (one, two), (changed, customer(950002)));
    let all = customers::table.filter(customers::customer_id.eq_any((950000..950050).collect::<Vec<i64>>())).order(customers::customer_id).load_stream::<Customer>(c).await?;
    check("a stream over shards", all.try_collect::<Vec<_>>().await?.len(), 50);
    let joined = customers::table.inner_join(orders::table.on(orders::customer_id.eq(customers::customer_id))).filter(customers::customer_id.le(50));
    let n: i64 = joined.count().get_result(c).await?;
    check("a join over shards", joined.select((customers::name, orders::status)).load::<(String, String)>(c).await?.len() as i64, n);
    let sum = diesel::sql_query("select sum(customer_id)::bigint as n from customers where customer_id between $1 and $2").bind::<BigInt, _>(1).bind::<BigInt, _>(10);
    check("SQL", sum.get_result::<Number>(c).await?.n, 55);
    let shared = &*c; // each takes &mut &connection: a pipeline
    let found = try_join_all((1..=50i64).map(|k| async move { customers::table.find(k).select(customers::customer_id).first::<i64>(&mut &*shared).await }));
    check("a pipeline", found.await?, (1..=50).collect::<Vec<_>>());
    check("delete", diesel::delete(customers::table.filter(customers::customer_id.ge(950000))).execute(c).await?, 100);
    Ok(())
}

async fn transactions(c: &mut AsyncPgConnection) -> Result<()> {
    let done = c.transaction::<_, Error, _>(async |c| {
        for k in 950000..950010 {
            diesel::insert_into(customers::table).values(customer(k)).execute(c).await?;
        }
        let inner = c.transaction::<(), Error, _>(async |c| {
            diesel::delete(customers::table.filter(customers::customer_id.ge(950000))).execute(c).await?;
            diesel::insert_into(customers::table).values(customer(1)).execute(c).await.map(|_| ())
        });
        check("an inner error", inner.await.is_err(), true);
        let locked = customers::table.find(950001).for_update().skip_locked().first::<Customer>(c).await?;
        check("locked", locked, customer(950001));
        Ok(())
    });
    done.await?;
    check("committed", added(c).await?, 10);
    let mut reading = c.build_transaction().repeatable_read().read_only();
    let undone = reading.run::<(), Error, _>(async |c| diesel::delete(customers::table.find(950001)).execute(c).await.map(|_| ()));
    check("read only", matches!(undone.await, Err(Error::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, _))), true);
    c.begin_test_transaction().await?;
    check("delete", diesel::delete(customers::table.filter(customers::customer_id.ge(950000))).execute(c).await?, 10);
    check("none", added(c).await?, 0);
    Ok(())
}
