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
select * from (select customer_id, name from customers limit 3) s where customer_id = 5
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
