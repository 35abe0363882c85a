-- Keys of two columns, ranges, lists, pinned keys and a schema on one shard: what prunes, joins and groups by them.
select * from marks where region = 'DE' and day = '2026-01-02' order by n
select * from marks where (region, day) = ('AT', '2026-01-03') order by n
select * from marks where (region, day) in (('AT', '2026-01-03'), ('DE', '2026-01-02'), ('zz', '2026-01-02')) order by n
select * from marks where region = 'DE' order by n
select * from marks where region >= 'AT' and region < 'DE' order by n
select * from marks where region = 'AT' and day between '2026-01-02' and '2026-01-04' order by n
select * from marks where region in ('AT', 'n3') and day > '2026-01-02' order by n
select * from marks where day = '2026-01-03' order by n
select region, day, count(*), string_agg(n::text, ',' order by n) from marks group by region, day having count(*) > 1 order by 1, 2
select region, count(*), sum(points) from marks group by region order by 1
select day, region, medal, n from marks join medals using (day) where area = region order by 1, 2, 3, 4
select m.n, d.medal from marks m left join medals d on d.area = m.region and d.day = m.day order by 1, 2
select m.n from marks m where exists (select from medals d where d.area = m.region and d.day = m.day) order by 1
select m.n from marks m where exists (select from medals d where d.area = m.region) order by 1
select m.n, (select count(*) from medals d where d.day = m.day and d.area = m.region) from marks m order by 1
select distinct region, day from marks order by 1, 2
select distinct on (region, day) region, day, n from marks order by 1, 2, 3
select * from customers where customer_id between 4 and 10 order by 1
select * from customers where customer_id > 11 and customer_id <= 12
select * from customers where 12 > customer_id order by 1
select count(*) from customers where customer_id between 11 and 3
select c.customer_id, o.order_id from customers c join orders o using (customer_id) where o.customer_id < 4 order by 1, 2
select * from texts where k = 'a'
select * from texts where k in ('a', 'é', 'A') order by v
select * from texts where k > 'a' order by v
select * from tenant.things t join tenant.parts p on p.thing = t.id order by p.id
select t.name, count(*), array_agg(p.id order by p.id) from tenant.things t left join tenant.parts p on p.thing = t.id group by t.name order by 1
select p.id, c.name from tenant.parts p join customers c on c.customer_id = p.customer order by 1
select t.id, k.name from tenant.things t left join countries k on k.code = t.name order by 1
select t.id, s.value from tenant.things t left join settings s on s.name = t.name order by 1
select row_number() over (order by id) + 1, id from tenant.parts order by 2 limit 3
select customer_id, order_id, row_number() over (partition by customer_id order by order_id) from orders order by 1, 2
select region, day, n, sum(points) over (partition by day, region order by n) from marks order by 1, 2, 3
select region, n, count(*) over (partition by region) from marks order by 1, 2
select * from (select customer_id, order_id, row_number() over (partition by customer_id order by total desc nulls last, order_id) as r from orders) s where r <= 2 order by 1, 2
select * from (select customer_id, order_id, row_number() over (partition by customer_id order by total desc nulls last, order_id) as r from orders) s where customer_id = 7 order by 2
select * from (select customer_id, order_id, row_number() over (order by order_id desc) as r from orders) s where customer_id = 7 order by 2
select c.name, o.n, o.spent from customers c join (select customer_id, count(*) as n, sum(total) as spent from orders group by customer_id having count(*) > 2) o on o.customer_id = c.customer_id order by c.customer_id
select c.name, o.n from customers c left join (select customer_id, count(*) as n from orders where total > 3 group by customer_id) o on o.customer_id = c.customer_id order by c.customer_id
select c.name, o.n from customers c left join (select customer_id, count(*) as n from orders where total > 3 group by customer_id) o on o.customer_id = c.customer_id where c.customer_id = 5
select c.name, o.n from customers c left join (select customer_id, count(*) as n from orders group by customer_id) o on o.customer_id = c.customer_id and c.customer_id = 5 order by c.customer_id
select c.name, o.n from (select customer_id, count(*) as n from orders group by customer_id) o right join customers c on o.customer_id = c.customer_id and o.customer_id = 5 order by c.customer_id
select avg(n), max(n), count(*) from (select customer_id, count(*) as n from orders group by customer_id) s
select country, avg(n) from customers join (select customer_id as c, count(*) as n from orders group by 1) s on c = customer_id group by country order by 1
select distinct on (customer_id) customer_id, order_id from orders order by customer_id, order_id desc
select distinct on (customer_id) order_id as customer_id, total from orders order by customer_id, total desc limit 4
select * from (select distinct on (customer_id) customer_id, order_id from orders order by customer_id, order_id desc) s where s.customer_id in (3, 4) order by 1
select c.customer_id, t.order_id from customers c cross join lateral (select order_id from orders o where o.customer_id = c.customer_id order by order_id desc limit 2) t order by 1, 2
select c.customer_id, t.order_id from customers c left join lateral (select order_id from orders o where o.customer_id = c.customer_id and o.total > 4 order by order_id desc limit 1) t on true order by 1, 2
select c.customer_id from customers c where exists (select from (select customer_id, count(*) as n from orders group by customer_id) s where s.customer_id = c.customer_id and s.n > 3) order by 1
select c.customer_id from customers c where c.customer_id not in (select s.customer_id from (select customer_id, count(*) as n from orders group by customer_id) s where s.n > 3) order by 1
select customer_id, sum(count(*)) over (partition by customer_id), rank() over (partition by customer_id order by count(*), order_id % 3) from orders group by customer_id, order_id % 3 order by 1, 2, 3
select x.customer_id, i.order_id from (select s.customer_id, count(*) from (select distinct customer_id, order_id % 2 from orders) s group by s.customer_id) x join orders i on i.customer_id = x.customer_id order by 1, 2
select s.k, s.n from (select o.customer_id as k, count(*) as n from customers c right join orders o on o.customer_id = c.customer_id and c.small > 3 group by o.customer_id) s join customers d on d.customer_id = s.k order by 1
select s.k, s.n from (select c.customer_id as k, count(*) as n from customers c right join orders o on o.customer_id = c.customer_id and c.small > 3 group by c.customer_id) s order by 1
select s.k, d.name from (select c.customer_id as k, count(*) as n from customers c right join orders o on o.customer_id = c.customer_id and c.small > 3 group by c.customer_id) s full join customers d on d.customer_id = s.k order by 1, 2
select from customers where customer_id <= 3
select from orders o join customers c on c.small = o.order_id
select from customers order by customer_id limit 2
select * from (select distinct on (1) customer_id, small from customers order by 1, 2) s where customer_id = 5
select * from (select distinct on (2) customer_id, small from customers order by 2, 1) s where customer_id = 5
select * from (select distinct on (2) customer_id, small from customers order by 2, 1) s where customer_id = 6
select customer_id, small, count(*) from customers group by 1, 2 having count(*) > 0
select small, customer_id, count(*) from customers group by 1, 2 having count(*) > 0
select * from customers where customer_id in (1, 2, 3) and name <> 'n2'
select * from customers where customer_id in (4, 5, 6) and name <> 'n5'
select * from customers where customer_id in (7, 8, 9) and name <> 'n5' limit 2000
select customer_id from customers where customer_id > 3 and name <> 'n5' limit 0
select customer_id from customers where customer_id > 17 and name <> 'n5' limit 100
select customer_id from customers where customer_id > -4 and name <> 'n5' limit 100
select t1.customer_id from customers t1 where t1.customer_id in (select t2.c0 from (select distinct t3.id as c0 from tenant.parts t3) t2 where t2.c0 = 3)
select c.customer_id from customers c where c.small in (select s.customer_id from (select distinct customer_id from orders) s) order by 1
select c.customer_id from customers c where c.small in (select s.customer_id from (select customer_id, count(*) as n from orders group by customer_id) s where s.n > 3) order by 1
select c.customer_id, (select max(s.n) from (select customer_id, count(*) as n from orders group by customer_id) s where s.customer_id = c.small) from customers c order by 1
