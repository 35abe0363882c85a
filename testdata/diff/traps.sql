-- Shapes where routers of this kind give wrong rows. Each statement runs on one PostgreSQL with all the rows and
-- through the proxy: columns, types, rows and tags must be equal, or the proxy must refuse (0A000).
select * from customers where customer_id >= 5 order by customer_id
select * from customers where customer_id <> 5
select * from customers where customer_id = 1 or country = 'DE'
select * from customers where customer_id in (1, 2 + 1, 7)
select * from customers where customer_id between 3 and 9
select customer_id from customers where customer_id = 1 union select customer_id from customers where customer_id = 2
select name, (select count(*) from orders o where o.customer_id = 3) from customers where customer_id = 1
select name, exists (select 1 from orders o where o.customer_id = c.customer_id) from customers c where customer_id = 4
select case when customer_id = 3 then 'three' else 'other' end from customers
select c.customer_id, o.order_id from customers c left join orders o on o.customer_id = c.customer_id and c.customer_id = 3
select c.customer_id, o.order_id from customers c left join orders o on o.customer_id = c.customer_id and o.customer_id = 3
select a.customer_id, b.customer_id from customers a join customers b on a.country = b.country
select k.code, c.customer_id from countries k left join customers c on c.country = k.code
select c.customer_id, k.name from customers c left join countries k on c.country = k.code
select count(*) from customers
select count(*), sum(customer_id), min(name collate "C"), max(name collate "C"), avg(customer_id) from customers
select sum(total), avg(total), min(order_id), max(order_id) from orders
select sum(big), avg(big) from customers
select sum(ratio), avg(ratio), min(ratio), max(ratio) from customers where ratio is not null and customer_id < 5
select avg(small), sum(small) from customers
select count(*) from customers where false
select sum(total), avg(total), max(created_at) from orders where false
select country, count(*) from customers group by country order by country collate "C"
select country, count(*), avg(small), sum(big) from customers group by country order by 2 desc, 1
select country from customers group by country order by 1 limit 2 offset 1
select small, count(*) from customers group by small order by small nulls first
select ratio, count(*) from customers group by ratio order by 1 desc nulls last
select day, count(*) from customers group by day order by 1
select count(*) filter (where small > 2), count(small) from customers
select count(distinct country) from customers
select distinct country from customers
select country, count(*) from customers group by country having count(*) > 2
select * from customers order by customer_id limit 3
select * from customers order by customer_id limit 3 offset 4
select * from customers order by customer_id offset 17
select name from customers order by customer_id desc limit 4
select name from customers order by small desc nulls last, customer_id limit 5
select name from customers order by small nulls first, customer_id
select name from customers order by ratio, customer_id
select name from customers order by ratio desc, customer_id
select name from customers order by -customer_id limit 3
select name from customers order by day desc nulls first, customer_id
select name from customers order by name collate "C"
select name as n, customer_id from customers order by 2 desc limit 2
select customer_id as name, name as customer_id from customers order by name limit 3
select o.total, c.name from orders o join customers c using (customer_id) order by o.total, c.customer_id, o.order_id limit 7
select c.country, sum(o.total) from orders o join customers c on c.customer_id = o.customer_id group by c.country order by 2, 1
select * from customers limit 0
select customer_id from customers where customer_id = null
select customer_id from customers where customer_id = '3'
select customer_id from customers where customer_id = 3.0
select customer_id from customers where customer_id = 3::numeric
select customer_id from customers where customer_id::text = '3'
select customer_id from customers where small = customer_id order by 1
select * from (select customer_id, row_number() over (order by name collate "C") r from customers) s where customer_id = 5
select * from (select customer_id, name from customers) s where s.customer_id = 5
select * from (select customer_id, name from customers order by customer_id limit 3) s where customer_id = 5
select max(c) from (select count(*) c from orders group by customer_id) s
with x as (select * from customers where customer_id = 5) select * from x
with x as (select * from customers) select count(*) from x a join x b on a.customer_id = b.customer_id
select t.k, t.v from texts t where t.k = 'a'
select t.k, t.v from texts t where t.k in ('a', 'b ', '007', 'é') order by v
select t.k from texts t where t.k = '007'
select t.k from texts t where t.k = $$it's$$
select t.k from texts t where t.k = E'it\'s'
select t.k from texts t where t.k = 'a'::char(5)
select k from texts order by k collate "C"
select k from texts order by k
select count(*) from texts where k = 'A' /* 'b' */ -- 'c'
select * from "Odd Table" where "Key" = 3
select "Key" from "Odd Table" order by "Key" desc limit 2
select * from settings order by name
select * from countries order by code
select count(*) from countries c join settings s on true
select customer_id, ctid is not null from customers where customer_id = 3
select random() < 2 from customers
select customer_id from customers where customer_id = any('{1,5,9}'::bigint[]) order by 1
select customer_id from customers where customer_id = any(array[1, 5, 9]) order by 1
select 1 from customers where customer_id = 1 group by grouping sets ((customer_id), ())
select string_agg(name, ',' order by name) from customers
select name from customers where customer_id = 3 for update
insert into customers (customer_id, name, country) values (101, 'n101', 'DE'), (102, 'n102', 'AT'), (103, 'n103', 'DE') returning customer_id, name
insert into customers (name, country, customer_id) values ('again', 'DE', 101) on conflict (customer_id) do update set name = excluded.name returning name
insert into customers (customer_id, name, country) values (101, 'dup', 'DE'), (104, 'n104', 'DE')
update customers set small = 9 where customer_id > 100
update customers set small = small + 1 where customer_id in (101, 102, 103) returning customer_id
update customers set name = 'x' where customer_id = 101
delete from customers where customer_id = 103 returning name
delete from customers where customer_id > 100
select count(*), max(customer_id) from customers
insert into customers (name, country) values ('nokey', 'DE')
insert into customers (customer_id, name, country) select 200, name, country from customers where customer_id = 1
select 1/0
select nosuch from customers
select * from nosuch
select * from rich order by customer_id
select count(*), sum(n) from rich
select * from rich where customer_id = 3
select r.country, k.name from rich r left join countries k on k.code = r.country
select a.customer_id from rich a join spenders b using (customer_id) order by 1
select * from spenders where total > 10 order by customer_id
select public.customers.name from public.customers join public.orders on public.orders.order_id = public.customers.customer_id order by 1
select c from customers c where c.customer_id in (3, 4)
select (c).name from customers c join orders o on o.order_id = c.customer_id
select customers.* from customers natural join orders
select * from customers c(a, b) where c.a > 3 and exists (select 1 from orders o where o.order_id = c.a) order by a
select c.country, c.name from customers c group by c.customer_id order by c.name collate "C", 1
select c.country, count(*) from customers c join orders o on o.order_id = c.customer_id group by c.customer_id order by 1, 2
select name, rank() over (partition by country order by customer_id) from customers order by name collate "C"
select sum(customer_id) over () from customers limit 1
with recursive t(n) as (select 1 union all select n + 1 from t join customers on customer_id = n) select max(n) from t
select array_agg(customer_id order by customer_id desc) from customers
select string_agg(name, ',' order by customer_id) filter (where small > 2) from customers
select country, array_agg(distinct small order by small) from customers group by country order by country collate "C" nulls first
select percentile_cont(0.5) within group (order by customer_id), mode() within group (order by country) from customers
select grouping(country, small), country, small, count(*) from customers group by cube (country, small) order by 1, 2, 3
select distinct on (country) country, name from customers order by country, customer_id desc
select customer_id from customers except select customer_id from orders where total > 3 order by 1
select customer_id, name from customers intersect all select 3, 'n3'
select customer_id from customers order by customer_id fetch first 3 rows with ties
select c.name, o.n from customers c cross join lateral (select count(*) n from orders o where o.order_id < c.customer_id) o order by c.customer_id
select c.customer_id, (select max(o.total) from orders o where o.order_id = c.customer_id) from customers c order by 1
select 1 from customers where customer_id = 1 / 0
select 1 / (customer_id - 5) from customers a where exists (select 1 from orders where order_id = a.customer_id)
select nosuch from customers
select * from customers c where nosuch.x = 1
select count(*) from customers c where not exists (select 1 from orders o where o.order_id = c.customer_id + 60)
select x.customer_id, y.total from customers x full join (select * from orders where total > 2) y on y.order_id = x.customer_id order by 1, y.order_id
select k.name, count(c.customer_id) from countries k left join customers c on c.country = k.code and c.small > 1 group by k.name order by 1
select s.name, c.name from settings s join customers c on c.customer_id = s.value::int
select * from (values (1, 'a'), (2, 'b'), (30, 'c')) v(id, t) left join customers c on c.customer_id = v.id order by id
select g, c.name from generate_series(1, 5) g left join customers c on c.customer_id = g order by g
select c.name from customers c tablesample bernoulli (100) order by c.customer_id
select variance(small), stddev(big) from customers where ratio < 5
select count(*) from (select 1 from customers union all select 1 from orders) x
select exists (select 1 from customers where customer_id > 19), (select count(*) from orders)
select "select" from "Odd Table" o where "Key" in (select customer_id from orders where total > 5)
select k from texts where k > 'a' order by k
select k, v from texts order by k desc limit 3
select max(k) from texts
select min(name) from customers group by country order by 1
select * from customers where (customer_id, name) in (select order_id, 'n' || order_id from orders)
select e.relname from pg_class e join customers c on c.name = e.relname
select c.name from customers c where exists (select 1 from orders o where o.customer_id = c.customer_id and o.total > 3)
select c.name, (select max(o.total) from orders o where o.customer_id = c.customer_id) from customers c
select c.name, (select o.order_id from orders o where o.customer_id = c.customer_id order by o.order_id desc limit 1) from customers c order by c.customer_id
select count(*) from customers where customer_id in (select customer_id from orders where total > 5)
select count(*) from customers where customer_id not in (select customer_id from orders where total > 5)
select count(*) from customers where customer_id in (select customer_id from orders group by customer_id having count(*) > 3)
select x.customer_id, c.customer_id in (select customer_id from orders where order_id > 60) from customers x left join (select * from customers where small > 2) c on c.customer_id = x.customer_id order by 1
select x.customer_id, c.customer_id not in (select customer_id from orders where order_id > 69) from customers x left join customers c on c.customer_id = x.customer_id and c.small > 2 order by 1
select c.customer_id from customers c where c.customer_id in (select o.order_id from orders o where o.customer_id = c.customer_id)
select c.customer_id from customers c where c.small in (select o.customer_id from orders o) order by 1
select c.customer_id from customers c where not exists (select 1 from orders o where o.customer_id = c.customer_id and exists (select 1 from orders p where p.customer_id = c.customer_id and p.order_id = o.order_id + 40))
select c.customer_id from customers c where exists (select 1 from orders o where o.customer_id = c.customer_id and exists (select 1 from orders p where p.order_id = o.order_id + 40)) order by 1
select c.customer_id from customers c where c.country in (select code from countries) order by 1
select c.customer_id from customers c where c.country = (select max(code) from countries) order by 1
select c.customer_id from customers c where c.customer_id in (select customer_id from orders limit 3) and false
select c.country, count(*) from customers c where exists (select 1 from orders o where o.customer_id = c.customer_id and o.total > 2) group by c.country order by 1
select c.customer_id, (select count(*) from orders o, customers d where o.customer_id = c.customer_id and d.customer_id = o.order_id) from customers c order by 1
select c.customer_id from customers c where c.customer_id = any (select o.customer_id from orders o left join customers d on d.customer_id = o.customer_id where d.small > 3) order by 1
select distinct name from customers order by name limit 3
select name from customers order by name limit 4 offset 2
select country, name from customers order by country nulls first, name desc fetch first 2 rows with ties
select country, sum(big) + count(*), avg(small) * 2, max(name) || 'x' from customers group by country having count(*) > 1 order by max(name)
select country, count(distinct small), sum(distinct small), count(*), avg(distinct small) filter (where small > 2) from customers group by country order by country
select sum(count(*)) over (), country from customers group by country order by country
select avg(ratio), avg(small::real), avg(created_at - timestamptz '2026-01-01') from customers c join orders o using (customer_id) where ratio < 3
select lower(country) as l, count(*) from customers group by l order by l
select bool_and(small > 1), bit_or(small), every(customer_id > 0) from customers
select small as customer_id, count(*) from customers group by customer_id order by 1, 2
select pgmosaic.country, count(*) from customers pgmosaic group by pgmosaic.country having count(*) > 2 order by 1
select count(*) filter (where country = 'DE') * 100 / count(*) from customers
select country || '-' || name as x from customers order by x limit 5
select max(name) from customers order by max(name) limit 1
select 1 as one, country from customers group by 1, 2 order by 2
select c.customer_id, o.order_id from customers c left join orders o on o.order_id = c.customer_id where o.total is null order by 1
select c.customer_id, o.order_id from customers c left join orders o on o.order_id = c.customer_id and o.total > 2 and c.small > 3 order by 1
select c.customer_id from (select * from customers) c left join (select * from orders) o on o.order_id = c.customer_id where o.total is null and c.small > 1 order by 1
select * from customers order by name, customer_id limit 3
select c.*, o.total from customers c join orders o on o.customer_id = c.customer_id order by c.name desc, o.order_id limit 5
select * from customers c join orders o on o.customer_id = c.customer_id order by c.name, o.order_id limit 4 offset 3
select distinct * from customers
select * from customers join orders using (customer_id) order by name, order_id limit 4
select s.* from (select name as n, customer_id from customers) s order by n, customer_id limit 3
select n, o_year, count(*) from (select c.name as n, extract(year from o.created_at) as o_year from customers c join orders o using (customer_id)) s group by n, o_year order by n, o_year
select customer_id, count(*), string_agg(name, ',' order by name), array_agg(distinct small) from customers group by customer_id having count(*) >= 1 order by 1
select o.customer_id, max(o.total) from customers c left join orders o on o.customer_id = c.customer_id and o.total > 8 group by o.customer_id order by 1 nulls first
select c.customer_id, count(o.order_id) from customers c left join orders o on o.customer_id = c.customer_id group by 1 having count(o.order_id) > 3 order by 2 desc, 1 limit 3
select c.country, c.customer_id, sum(o.total) from customers c join orders o using (customer_id) group by c.customer_id, c.country order by sum(o.total) desc nulls last, c.customer_id limit 5 offset 1
select distinct customer_id, country from customers order by customer_id desc limit 3
select distinct o.customer_id from customers c left join orders o on o.customer_id = c.customer_id and o.total > 8 order by 1
select small as customer_id, count(*) from customers c group by c.customer_id, small having max(customer_id) > 3 order by 2, 1
select customer_id as c, count(*) from orders group by c order by c limit 2
select s.customer_id, count(*) from (select customer_id from orders where total > 2) s group by s.customer_id having count(*) > 1 order by 1
select x.customer_id, count(*) from countries k left join (select customer_id, country from customers) x on x.country = k.code group by x.customer_id order by 1
select t1.customer_id from orders t1 join orders t2 on t2.customer_id = t1.order_id left join customers t3 on t3.customer_id = t2.customer_id and t3.customer_id = t1.customer_id order by 1
select count(*), count(t3.name) from orders t1, orders t2 left join customers t3 on t3.customer_id = t2.customer_id where t1.order_id = t2.customer_id
select a.customer_id, b.order_id, c.name from orders a left join (orders b left join customers c on c.customer_id = b.customer_id) on c.customer_id = a.customer_id order by 1, 2, 3
select a.customer_id, b.order_id, c.name from orders a left join (orders b join customers c on c.customer_id = b.customer_id) on c.customer_id = a.customer_id and b.order_id < a.order_id order by 1, 2, 3
select t1.order_id, t2.order_id from customers t3 right join orders t1 on t1.customer_id = t3.customer_id join orders t2 on t2.customer_id = t3.customer_id order by 1, 2
select t1.order_id, t2.order_id from orders t1 left join customers t3 on t3.customer_id = t1.customer_id left join orders t2 on t2.customer_id = t3.customer_id order by 1, 2
select t1.order_id, t2.order_id from orders t1 join orders t2 on t1.total = t2.total left join customers t3 on t3.customer_id = t1.customer_id left join customers t4 on t4.customer_id = t2.customer_id and t4.customer_id = t3.customer_id order by 1, 2
-- Functions that return sets, in FROM: rows like any other's, unless an outer join keeps them.
select g.i, c.customer_id from customers c, generate_series(1, 3) g(i)
select g.i, count(*) from customers c join generate_series(1, 5) g(i) on g.i = c.small group by g.i order by 1
select g.i, count(c.customer_id) from generate_series(1, 5) g(i) left join customers c on c.small = g.i group by g.i order by 1
select c.customer_id, g from generate_series(1, 5) g right join customers c on c.small = g
select c.customer_id, g from customers c full join generate_series(1, 30) g on g = c.customer_id
select c.customer_id, e from customers c, unnest(array[c.small, c.customer_id]) e
select c.customer_id, e.v, e.n from customers c, unnest(array['a', 'b']) with ordinality e(v, n) where e.n > 1
select c.customer_id, x.k from customers c left join lateral unnest(array[c.small]) x(k) on x.k > 2
select c.* from unnest(array[1, 2, 3]) u(k) join customers c on c.customer_id = u.k
select c.* from unnest(array[1, 2, 3]) u(customer_id) join customers c using (customer_id)
select c.name from customers c natural join unnest(array[1, 2, 3]) u(customer_id)
select count(*) from unnest(array[1, 2, 2]) u(k) where u.k in (select customer_id from customers)
select count(*) from generate_series(1, 20) i where exists (select from customers c where c.customer_id = i)
select i from generate_series(1, 20) i where not exists (select from orders o where o.customer_id = i) order by i
select i, (select count(*) from orders o where o.customer_id = i) from generate_series(1, 5) i order by 1
select i, o.order_id from generate_series(1, 5) i, lateral (select order_id from orders o where o.customer_id = i) o
select i, n from generate_series(1, 5) i, lateral (select count(*) n from orders o where o.customer_id = i) o
select x.s from (select c.customer_id, s from customers c, generate_series(1, c.small) s) x where customer_id = 3
select s, sum(c.customer_id) from customers c, generate_series(1, c.small) s group by s order by s
select customer_id, count(*) from customers, generate_series(1, small) s group by customer_id having count(*) > 2
select distinct j.value from customers c, jsonb_array_elements('[1, 2, 2]') j
select max(i), count(*), count(distinct i) from generate_series(1, 10) i, customers
select generate_series, customer_id from generate_series(1, 2) cross join customers order by 1, 2 limit 5 offset 2
select r.*, c.name from rows from (generate_series(1, 2), unnest(array['x', 'y', 'z'])) r(a, b), customers c where c.customer_id = 3
select c.customer_id from customers c, json_to_recordset('[{"k":1},{"k":4}]') as j(k int) where j.k = c.customer_id
select c.customer_id, m[1] from customers c, regexp_matches(c.name, '[a-z]', 'g') m where c.customer_id < 4
select c.customer_id, g from customers c, generate_series(1, (select count(*) from orders)) g
select c.customer_id, g from customers c, generate_series(1, (select count(*) from orders o where o.customer_id = c.customer_id)) g
select g, row_number() over (partition by c.customer_id order by g) from customers c, generate_series(1, 2) g
select g, row_number() over (order by g, c.customer_id) from customers c, generate_series(1, 2) g
select unnest(array[g, g + 1]), c.customer_id from customers c, generate_series(1, 2) g
select c.customer_id, array_agg(g order by g desc) from customers c, generate_series(1, 2) g group by c.customer_id
select customer_id from customers, generate_series(1, 2) g union all select g from generate_series(1, 3) g
with g as (select i from generate_series(1, 3) i) select g.i, c.customer_id from g join customers c on c.customer_id = g.i
with g as (select i, c.customer_id from generate_series(1, 3) i, customers c) select i, count(*) from g group by i order by i
select c.customer_id from customers c where c.small in (select i from generate_series(1, 3) i)
select c.customer_id from customers c where exists (select from generate_series(1, c.small) i where i = 4)
select c.customer_id, (select string_agg(i::text, ',' order by i) from generate_series(1, c.small) i) from customers c
-- a function in FROM without an alias has its own name, and hides a table of that name outside
select json_populate_record.order_id from orders json_populate_record where json_populate_record.customer_id = 3 and exists (select from json_populate_record(null::customers, '{"customer_id":7}'), "Odd Table" x where x."Key" = json_populate_record.customer_id)
select json_populate_record.order_id from orders json_populate_record where json_populate_record.customer_id = 3 and exists (select from rows from (pg_catalog.json_populate_record(null::customers, '{"customer_id":6}'), abs(3)) with ordinality, "Odd Table" x where x."Key" = json_populate_record.customer_id)
select orders.order_id from orders where orders.customer_id = 3 and exists (select from cast('(7,1,,)' as orders), "Odd Table" x where x."Key" = orders.customer_id)
select orders.order_id from orders where orders.customer_id = 3 and exists (select from cast('(6,1,,)' as public.orders), "Odd Table" x where x."Key" = orders.customer_id)
select "greatest".order_id from orders "greatest" where "greatest".customer_id = 3 and exists (select from greatest('(6,1,,)'::orders, '(7,1,,)'::orders), "Odd Table" x where x."Key" = "greatest".customer_id)
select "coalesce".order_id from orders "coalesce" where "coalesce".customer_id = 3 and exists (select from coalesce('(6,1,,)'::orders, '(7,1,,)'::orders), "Odd Table" x where x."Key" = "coalesce".customer_id)
select c.customer_id from customers c where exists (select from generate_series(1, 2), orders o where o.customer_id = c.customer_id and generate_series.generate_series = o.order_id)
select f, count(*) from orders o, nullif(o.order_id, 1) f group by f order by f
select "nullif", count(*) from orders o, nullif(o.order_id, 1) group by 1 order by 1
select "nullif"."nullif" from orders o, nullif(o.order_id, 1) order by "nullif"."nullif" desc limit 3
select distinct f.x, f.ordinality from orders o, rows from (nullif(o.order_id % 3, 1)) with ordinality f(x) order by 1
select x.order_id, count(*) from customers c, nullif('(6,1,,)'::orders, '(7,1,,)'::orders) x group by 1
select "nullif".total, count(*) from customers c, nullif('(6,1,,)'::orders, '(7,1,,)'::orders) group by 1
select nullif(f.x, 1), count(*) from orders o, jsonb_to_recordset(jsonb_build_array(jsonb_build_object('x', o.order_id))) f(x int) group by 1 order by 1
select c.customer_id from customers c where exists (select from orders o, nullif(o.order_id, 1) f where o.customer_id = c.customer_id and f = c.small) order by 1
select a.customer_id, count(*) from customers a join customers b on a.country = b.country, nullif(b.small, 1::smallint) f where f is not null group by 1 order by 1
-- names of output columns that no AS gives, which ORDER BY means before columns of FROM, and GROUP BY behind them
select customer_id::text from customers order by customer_id limit 3
select customer_id::text, name from customers order by customer_id offset 15
select name collate "C" from customers order by name limit 3
select small::text, count(*) from customers group by small order by small limit 3
select small::text as s, count(*) from customers group by small order by small limit 3
select -customer_id as customer_id from customers order by customer_id limit 3
select lower(name), customer_id from customers order by lower, customer_id limit 3
select case when customer_id > 3 then -small else -customer_id end::text from customers order by "case" limit 4
select case when customer_id > 3 then small else customer_id end from customers order by customer_id desc limit 4
select (array[-customer_id])[1] from customers order by "array" limit 3
select coalesce(small, 99) from customers order by coalesce desc limit 5
select name, (select max(code) from countries) from customers order by max, name limit 2
select o.order_id from customers c join orders o using (customer_id) order by order_id limit 4
select distinct on (customer_id) o.customer_id, c.name from customers c join orders o on o.customer_id = c.customer_id order by customer_id
select distinct on (customer_id) o.order_id % 5 as customer_id, 1 from customers c join orders o on o.customer_id = c.customer_id order by customer_id
select upper(t) as t, count(*) from (select case when customer_id > 9 then 'a' else 'A' end as t from customers) s group by t order by 1, 2
select round(total) as total, count(*) from (select total * 2 as total from orders) s group by total order by 1, 2
select upper(t) as u, count(*) from (select * from (select case when customer_id > 9 then 'a' else 'A' end as t from customers) r) s group by u order by u
select name as name, country as name from customers order by name
select s.name from (select name, small as c1 from customers) s order by c1 nulls first, name limit 3
select s.c2 from (select small as c1, name as c2 from customers) s order by c1, c2 limit 3
select o.* from customers c join orders o on o.customer_id = c.customer_id order by customer_id, order_id limit 5
select o.* from customers c left join (select * from orders where order_id > 60) o using (customer_id) order by customer_id, order_id
select o.customer_id, c.* from customers c left join (select * from orders where order_id > 60) o on o.customer_id = c.customer_id order by customer_id
select *, 1 from customers c join orders o on o.customer_id = c.customer_id order by customer_id
select (c).* from customers c order by 2 desc, 1 limit 3
select (c).*, -small from customers c order by 4, 1 limit 3
-- the order of a subquery, which what only reads its rows keeps
select * from (select * from orders order by created_at desc) s limit 10
select order_id from (select * from orders order by total desc nulls last, order_id) s limit 5
select * from (select customer_id, count(*) from orders group by customer_id order by 2 desc, 1) s limit 3
select * from (select order_id as n, customer_id from orders order by n desc) s where customer_id > 3 limit 5 offset 2
select name from (select * from (select name, customer_id from customers order by customer_id desc) a) b limit 4
select total from (select total, order_id from orders order by -order_id) s limit 4
select * from (select name from customers order by name) s limit 4
select * from (select distinct on (customer_id) customer_id, order_id from orders order by customer_id, total desc nulls last, order_id) s limit 3
select count(*) from (select * from orders order by created_at) s
-- sums and averages of floats
select avg((customer_id / 3.0)::real), avg(customer_id::real) from customers
select country, avg((customer_id / 3.0)::real) from customers group by country order by 2
select sum(case when customer_id in (4, 12) then 1e308::float8 end) from customers
select avg(case when customer_id in (4, 12) then 1e308::float8 end) from customers
select sum(case when customer_id in (4, 12) then 3e38::real end) from customers
select sum(case when customer_id in (4, 12) then 'Infinity'::float8 end) from customers
-- a LIMIT that means all
select customer_id from customers order by customer_id limit 9223372036854775807 offset 3
select customer_id from customers order by name limit 9223372036854775807 offset 17
select count(*) from customers offset 0 limit 9223372036854775807
select country, count(*) from customers group by country order by 2, 1 limit 9223372036854775807 offset 1
select customer_id from customers order by customer_id limit null offset 18
select customer_id from customers order by customer_id limit 2147483647 offset 2147483647
-- zeros that have a sign
select sum(-ratio), sum((-ratio)::real), avg(-ratio) from customers where ratio = 0
select country, sum(-ratio), avg(-ratio) from customers where ratio = 0 group by country
select sum(-ratio), avg(-ratio), count(distinct country) from customers where ratio = 0
select sum(ratio) from customers where ratio = 0
-- values of types that no column can have
select distinct row(small) from customers
select count(distinct row(small, country)) from customers
select row(name) from customers order by 1, customer_id limit 3
select row(small, country), count(*) from customers group by 1 order by 1
select count(distinct array[row(small)]) from customers
select int2out(small) from customers order by lower(name), customer_id limit 3
-- a name that two output columns have
select country as x, max(small) as x from customers group by country order by x
select country as x, country as x from customers group by country order by x
select max(small) as x, min(small) as x from customers order by x
-- subqueries of ON CONFLICT and RETURNING run where the rows go, and must see all that they name: refused where they would not
insert into customers (customer_id, name) select customer_id, 'x' from orders group by customer_id on conflict (customer_id) do update set name = customers.name where (select count(*) from orders) = 70 returning customer_id
insert into customers (customer_id, name) select customer_id, 'x' from orders group by customer_id on conflict (customer_id) do update set name = customers.name where customers.customer_id in (select order_id from orders) returning customer_id
insert into customers (customer_id, name) select customer_id, 'x' from orders group by customer_id on conflict (customer_id) do update set name = customers.name returning customer_id, (select count(*) from orders)
insert into customers (customer_id, name) select customer_id, 'x' from orders group by customer_id on conflict (customer_id) do update set name = customers.name returning customer_id, (select count(*) from orders o where o.customer_id = customers.customer_id), (select count(*) from countries)
insert into customers (customer_id, name) select customer_id, 'x' from orders group by customer_id on conflict (customer_id) do update set name = customers.name where (select count(*) from orders o where o.customer_id = excluded.customer_id) > 3 returning customer_id
insert into customers (customer_id, name) select order_id, 'x' from orders where order_id < 5 on conflict (customer_id) do update set name = customers.name where (select count(*) from customers) = 20 returning customer_id
insert into customers (customer_id, name) select order_id, 'x' from orders where order_id < 5 on conflict (customer_id) do update set name = customers.name returning (select count(*) from settings)
insert into customers (customer_id, name) select order_id, 'x' from orders where order_id < 5 on conflict (customer_id) do update set name = customers.name returning (select count(*) from orders o where o.customer_id = customers.customer_id), (select count(*) from countries)
insert into settings (name) select 'a' from customers where customer_id = 7 on conflict (name) do update set name = settings.name returning (select count(*) from orders)
insert into settings (name) select 'a' from customers where customer_id = 7 on conflict (name) do update set name = settings.name returning (select count(*) from settings), (select count(*) from countries)
with x as (select count(*) as n from orders where customer_id in (1, 2)) insert into customers (customer_id, name) select customer_id, 'x' from orders where customer_id in (1, 2, 3, 4) group by customer_id on conflict (customer_id) do update set name = customers.name returning (select n from x)
-- What each server has its own value of is no key by which shards' rows are put together.
select country, count(*) from customers group by country, now()
select country, count(*), now() - now() as z from customers group by 1, 3 order by country collate "C"
select count(*) from (select distinct now() from customers) x
select count(distinct now()) from customers
select count(distinct case when small > 2 then current_database() end) from customers
select count(distinct n) from (select now() as n from customers) s
select count(distinct n) from (select now() as n from customers limit 30) s
select count(distinct n) from (select customer_id, now() as n from customers group by customer_id) s
select count(distinct s) from (select now() as n from customers) s
select count(*) from (select n, count(*) from (select now() as n, country from customers) s group by n) x
select count(*) from (select distinct * from (select current_database() as n, country from customers) s) x
select count(*) from (select pg_backend_pid() from customers group by 1) x
select count(*) from (select 'customers'::regclass::oid from customers group by 1) x
select count(distinct pg_typeof(c.country)::oid) from customers c
select count(distinct statement_timestamp()), count(distinct inet_server_port()) from customers
select count(*) from (select now() from customers union select now() from customers) u
select count(*) from (select current_database() as n from customers group by grouping sets ((n), ())) x
select customer_id, count(*) from orders group by customer_id, now() order by 1 limit 4
select customer_id % 3, count(*) from orders where created_at < now() group by 1 order by 1
select distinct extract(hour from created_at) from orders where created_at < now() order by 1
select count(distinct age(created_at, '2026-01-01 00:00+00')) from orders
select count(*) from (select (select now()) from customers group by 1) x
-- FOR UPDATE leaves the order of a subquery's rows.
select customer_id from (select customer_id from customers order by customer_id desc) s limit 1 for update
select customer_id from (select customer_id from customers order by customer_id desc) s for update
select customer_id from (select customer_id from customers) s for update
select customer_id from (select customer_id from customers order by customer_id desc) s where customer_id = 3 limit 1 for update
