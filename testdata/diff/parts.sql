-- SELECTs inside others, each made by the shards: set operations by their leaves, scalar subqueries, EXISTS, WITH, derived tables.
select 'customers' as what, count(*) from customers union all select 'orders', count(*) from orders order by 1
select count(*), sum(total) from orders union select count(*), sum(total) from orders where total > 3 order by 1
select country, count(*) from customers group by country union all select country, -count(*) from customers where small > 2 group by country order by 1, 2
select country from customers intersect select country from customers where small > 2 order by 1
select country from customers group by country having count(*) > 1 except select 'de' order by 1
select customer_id from customers except all select customer_id from orders order by 1
(select customer_id from customers order by customer_id limit 3) union all (select customer_id from orders order by customer_id desc, order_id limit 3) order by 1
select '1' as x, count(*) from customers union all select order_id, 2 from orders where order_id < 4 order by 1, 2
select null, count(*) from customers union all select day, 1 from customers where customer_id < 3 order by 1, 2
select (select count(*) from customers), (select max(total) from orders), (select avg(small) from customers where country = 'de')
select (select count(*) from customers) - (select count(distinct customer_id) from orders) as without
select exists (select 1 from orders where total > 100), exists (select from orders where total < 0), not exists (select * from customers where country is null)
select exists (select 1 from customers c join orders o using (customer_id) where c.country = 'de' and o.total > 2)
select customer_id from customers where exists (select 1 from orders where total is null) order by 1
select customer_id, name from customers where small > (select avg(small) from customers) order by 1
select customer_id from customers where small >= all (select max(small) from customers group by country having count(*) > 2) order by 1
select o.order_id from orders o where o.customer_id in (select customer_id from customers order by small desc nulls last, customer_id limit 4) order by 1
select c.name, t.n from customers c, (select count(*) as n from orders) t order by 1
select c.country, t.n from customers c join (select country, count(*) as n from customers group by country) t on t.country = c.country order by c.customer_id
with n as (select country, count(*) as n from customers group by country) select a.country, a.n, (select sum(n) from n) from n a order by 1
with t as materialized (select customer_id, sum(total) as s from orders group by customer_id), u as (select max(s) as m from t) select customer_id from t, u where s = m order by 1
with top as (select customer_id, sum(total) as s from orders group by customer_id order by s desc nulls last, customer_id limit 3) select c.name, top.s from top join customers c using (customer_id) order by 2 desc nulls last, 1
select x.lower, x.count from (select lower(country), count(*) from customers group by 1) x join countries k on upper(k.code) = upper(x.lower) order by 1
select "N m", "count" from (select country as "N m", count(*) from customers group by 1) q where "count" = (select max(n) from (select count(*) as n from customers group by country) z) order by 1
select * from (select count(*), count(*) from customers) q
select (select string_agg(x, '') from (select country as x from customers where country = 'de' limit 2) s)
select c.customer_id, (select count(*) from orders o where o.total > c.small) as more from customers c order by 1
select c.customer_id, (select count(*) from orders o where o.total > (select avg(total) from orders)) from customers c order by 1
select c.customer_id from customers c where (select count(*) from orders where small > 2) > 3 order by 1
select (select count(*) from customers where day > '2026-01-02' and country = $$de$$) as "n", (select sum(n) from (select count(*) as n from orders group by total) s)
select (select array_agg(n order by n) from (select count(*) as n from orders group by customer_id) s)
select k.code, (select count(*) from customers) from countries k order by 1
select s.name, (select count(*) from customers) from settings s order by 1
select count(*) from (select 1 from customers union all select 1 from orders) s
select variance(small), var_pop(small), stddev(big), stddev_pop(big), var_samp(customer_id), stddev_samp(small) from customers
select country, variance(small), stddev(big) filter (where small > 1), var_pop(customer_id) from customers group by country order by 1
select variance(total), stddev(total), stddev_pop(total), var_pop(total) from orders
select round(total, 3), variance(total), stddev(total), stddev_pop(order_id) from orders group by total having stddev(order_id) is null or stddev(order_id) > 0 order by 1
select stddev(ratio) > 1, variance(ratio) is null from customers where ratio < 5
select string_agg(country, ', ') from customers where country = 'de'
select country, string_agg('x', '') from customers group by country order by 1
select length(string_agg(name, '--')), length(string_agg(name, ',') filter (where small > 1)) from customers
select 'FROM pgmosaic_part_01' as x, count(*) from customers union all select 'FROM pgmosaic_part_02', count(*) from orders order by 1
select 'pg_temp.pgmosaic_part_01 ' as x, (select count(*) from customers) from customers where customer_id < 4 union all select 'y', count(*) from orders order by 1, 2
select exists (select 1 from customers c join orders o using (customer_id)), exists (select c.* from customers c join orders o using (customer_id) where o.total < -5)
-- A constant takes its type from the SELECTs beside it: 'b ' is 'b' where they give char(3).
select count(*) from ((select 'b ' from customers limit 1) union (select bp from padded)) u
select count(*) from ((select bp from padded) union (select 'b ' from customers limit 1) union select null from customers group by country) u
select count(*) from (select 'b ' as x, count(*) from customers union select bp, 20 from padded where id = 2) u
select count(*) from ((select 'b ' collate "C" from customers limit 1) union (select bp from padded)) u
select count(*) from (select x from ((select 'b ' as x from customers limit 1) union all (select bp from padded)) s group by x) u
select * from ((select * from (select 'b ' as x from customers limit 1) s) union select bp from padded) u order by 1
select 'x' as k, count(*) from customers union all select name, small from customers order by 1, 2
select null as k, count(*) from customers union all select small, customer_id from customers order by 1, 2
select bp from padded where bp in (select 'b ' from customers limit 1) order by id
