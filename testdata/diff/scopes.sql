-- What a name means hangs on where it stands. In most of these the key of one table has the name that a column of another one has.
-- x.* in a subquery is that of x alone.
select * from (select p.* from (select customer_id as id, name from customers) u join (select customer_id as user_id, order_id as id, total from orders) p on p.user_id = u.id) s where s.id = 7
select s.user_id, t.what from (select p.* from (select customer_id as id, name from customers) u join (select customer_id as user_id, order_id as id, total from orders) p on p.user_id = u.id) s join (select "Key" as id, "select" as what from "Odd Table") t on t.id = s.id order by 1, 2
select s.id, count(*) from (select p.* from (select customer_id as id, name from customers) u join (select customer_id as user_id, small as id, name from customers) p on p.user_id = u.id) s group by s.id order by 1
select distinct s.id from (select p.* from (select customer_id as id, name from customers) u join (select customer_id as user_id, small as id, name from customers) p on p.user_id = u.id) s order by 1
select distinct on (s.id) s.id, s.user_id from (select p.* from (select customer_id as id, name from customers) u join (select customer_id as user_id, small as id, name from customers) p on p.user_id = u.id) s order by s.id, s.user_id desc
select s.id, row_number() over (partition by s.id order by s.user_id) from (select p.* from (select customer_id as id, name from customers) u join (select customer_id as user_id, small as id, name from customers) p on p.user_id = u.id) s order by 1, 2
select c.name, s.n from customers c join (select p.*, row_number() over (partition by p.user_id order by p.name) as n from (select customer_id as id, name from customers) u join (select customer_id as user_id, small as id, name from customers) p on p.user_id = u.id) s on s.id = c.customer_id order by 1, 2
select s.total, rank() over (order by s.total) from (select o.* from customers c join (select customer_id, order_id as small, total from orders) o on o.customer_id = c.customer_id) s where s.small = 3
select s.name from (select u.*, p.total from (select customer_id as id, name from customers) u join (select customer_id as user_id, order_id as id, total from orders) p on p.user_id = u.id) s where s.id = 7 order by 1
select * from (select k.*, c.customer_id from customers c join countries k on k.code = c.country) s where s.name = 'Austria' order by customer_id
-- ON sees the two sides of its join.
select l.what from (select customer_id as id, name from customers) u, (select customer_id as user_id, order_id as id, total from orders) p join (select "Key" as user_id, "select" as what from "Odd Table") l on l.user_id = p.user_id and id = 5 where u.id = p.user_id
select u.name from (select customer_id as id, name from customers) u join ((select customer_id as user_id, order_id as id, total from orders) p join (select "Key" as user_id, "select" as what from "Odd Table") l on l.user_id = p.user_id and id = 5) on u.id = p.user_id
select u.name from (select customer_id as id, name from customers) u, (select customer_id as user_id, order_id as id, total from orders) p join (select "Key" as user_id, "select" as what from "Odd Table") l on l.user_id = p.user_id and id in (3, 4, 5) where u.id = p.user_id order by 1
select u.name from (select customer_id as id, name from customers) u, (select customer_id as user_id, order_id as id, total from orders) p left join (select "Key" as user_id, "select" as what from "Odd Table") l on l.user_id = p.user_id and id < 9 where u.id = p.user_id and l.what is not null order by 1
select u.name from (select customer_id as id, name from customers) u, (select customer_id as user_id, order_id as id, total from orders) p join (select "Key" as user_id, "select" as what from "Odd Table") l on exists (select 1 from "Odd Table" t where t."Key" = id) and l.user_id = p.user_id where u.id = 8 and p.user_id = u.id
select a.k, c.o from (select customer_id as k from customers) a join (select "Key" as k from "Odd Table") b using (k), (select order_id as k, customer_id as o from orders) c join (select "Key" as m from "Odd Table") d on k = d.m where a.k = 5 order by 1, 2
-- What ON demands of a row of the level around is so only where no outer join stands above.
select u.name, row_number() over (order by u.name) from customers u where exists (select 1 from orders w left join (countries y join countries z on u.customer_id = 5) on true where w.customer_id = u.customer_id) order by 2
select u.name, row_number() over (order by u.name) from customers u where exists (select 1 from orders w join (countries y join countries z on u.customer_id = 5) on true where w.customer_id = u.customer_id) order by 2
-- A sublink in a subquery in FROM sees that one's FROM.
select u.id, q.total from (select customer_id as id, name from customers) u join (select user_id, total from (select customer_id as user_id, order_id as id, total from orders) p where id in (select "Key" from "Odd Table")) q on q.user_id = u.id order by 1, 2
select u.id, q.total from (select customer_id as id, name from customers) u join (select user_id, total from (select customer_id as user_id, order_id as id, total from orders) p where id not in (select "Key" from "Odd Table")) q on q.user_id = u.id order by 1, 2
select u.name from (select customer_id as id, name from customers) u join (select user_id from (select customer_id as user_id, order_id as id, total from orders) p where exists (select 1 from "Odd Table" t where t."Key" = id)) q on q.user_id = u.id where u.id = 8
select u.name from (select customer_id as id, name from customers) u join (select user_id from (select customer_id as user_id, order_id as id, total from orders) p where exists (select 1 from "Odd Table" t where t."Key" = id)) q on q.user_id = u.id where u.id = 5
select u.name from (select customer_id as id, name from customers) u join (select user_id from (select customer_id as user_id, order_id as id, total from orders) p where exists (select 1 from "Odd Table" t where t."Key" = id)) q on q.user_id = u.id where u.id = 10
select u.name, q.what from (select customer_id as id, name from customers) u join (select user_id, (select max("select") from "Odd Table" t where t."Key" = id) as what from (select customer_id as user_id, order_id as id, total from orders) p) q on q.user_id = u.id order by 1, 2
-- WITH and a subquery in FROM do not see what stands beside them.
select p.total from (select customer_id as user_id, order_id as id, total from orders) p where p.user_id = 8 and exists (with x as (select 1 from "Odd Table" t where t."Key" = id) select 1 from x, (select customer_id as id, name from customers) u where u.id = p.user_id)
select p.total from (select customer_id as user_id, order_id as id, total from orders) p where p.user_id = 10 and exists (select 1 from (select customer_id as id, name from customers) u, (select 1 from "Odd Table" t where t."Key" = id limit 1) y where u.id = p.user_id)
-- What has no AS has the name of what is cast in it.
select u.name from (select customer_id as id, name from customers) u where u.id = 8 and exists (select 1 from (select id::int, user_id from (select customer_id as user_id, order_id as id, total from orders) p) q join "Odd Table" t on t."Key" = id where q.user_id = u.id)
select u.name from (select customer_id as id, name from customers) u where exists (select 1 from (select id::int, user_id from (select customer_id as user_id, order_id as id, total from orders) p) q join "Odd Table" t on t."Key" = id where q.user_id = u.id) order by 1
-- LATERAL sees what stands before it.
select u.name, t.total from (select customer_id as id, name from customers) u cross join lateral (select total from orders o where o.customer_id = id order by total nulls last, order_id limit 1) t order by 1, 2
select u.name, t.total from (select customer_id as id, name from customers) u cross join lateral (select total from orders o where o.customer_id = id order by total nulls last, order_id limit 1) t, (select customer_id as user_id, order_id as id, total from orders) p where p.user_id = u.id and u.id = 7 order by 1, 2
-- DISTINCT ON in IN: which rows are left hangs on all of them.
select customer_id from customers where customer_id in (select distinct on (small) customer_id from customers order by small, customer_id desc) order by 1
select customer_id from customers where customer_id not in (select distinct on (count(*)) customer_id from orders group by customer_id order by count(*), customer_id desc) order by 1
-- NOT IN over what an outer join blanks.
select order_id from orders o where o.customer_id not in (select s.customer_id from countries k left join (select customer_id, country from customers where small = 2) s on s.country = k.code where k.code = 'DE') order by 1
select order_id from orders o where o.customer_id not in (select s.customer_id from countries k left join (select customer_id, max(country) as country from customers where small = 2 group by customer_id) s on s.country = k.code where k.code = 'DE') order by 1
select order_id from orders o where o.customer_id not in (select s.customer_id from (select customer_id, country from customers where small = 2) s join countries k on s.country = k.code) order by 1
-- What MERGE inserts is made of the source.
insert into orders (customer_id, order_id) values (201, 1), (202, 2), (203, 3), (204, 4)
merge into customers c using orders o on c.customer_id = o.customer_id when not matched and order_id < 4 then insert (customer_id, name) values (customer_id, 'n' || order_id)
merge into customers c using orders o on c.customer_id = o.customer_id when not matched and exists (select 1 from "Odd Table" where "Key" = customer_id) then insert (customer_id, name) values (customer_id, 'n' || order_id)
select customer_id, name from customers where customer_id > 200 order by 1
delete from customers where customer_id > 200
delete from orders where customer_id > 200
-- An aggregate in a subquery is that of the innermost level whose columns it names.
select (select sum(c.small)) from customers c
select (select count(c.customer_id)), (select max(c.day)) from customers c
select (select sum(small)) from customers
select (select count(c)), (select count(c.*)), (select count(customers)) from customers c, (select 1) customers
select (select count(*)) from customers c order by 1
select (select sum(1)), (select count(*) from countries) from customers c
select array(select count(c.small)) from customers c
select exists (select 1 having sum(c.small) > 10) from customers c
select (select max(c.small) filter (where c.country = 'DE')) from customers c
select (select json_arrayagg(c.small order by c.customer_id)) from customers c where c.customer_id < 9
select (select string_agg(c.name, ',' order by c.customer_id)) from customers c
select 1 as one from customers c order by (select max(c.small))
select distinct (select sum(c.small)) from customers c
select (select max(k.name) from countries k where k.code = max(c.country)) from customers c
select (select max(k.name) from countries k where k.code = max(country)) from customers c
select (select max(name) from countries) from customers c order by c.customer_id
select c.customer_id, (select max(k.name) from countries k where k.code = c.country) from customers c order by 1
select c.customer_id, (select max(x) from unnest(array[c.small, 2]) x) from customers c order by 1
select c.customer_id, (select count(total) from orders o where o.customer_id = c.customer_id) from customers c order by 1
select (select sum(small) from unnest(array[1, 2]) u) from customers c
select max(n) from (select (select sum(c.small)) as n from customers c) s
select n from (select (select sum(c.small)) as n, 1 as one from customers c) s where one = 1
select (select (select count(c.small)) from customers c limit 1)
select o.order_id from orders o where o.total > (select (select count(c.small)) from customers c limit 1) order by 1
select exists (select (select sum(c.small)) from customers c where false)
select (select x from (select sum(c.small) as x) s) from customers c
select (with w as (select sum(c.small) as x) select x from w) from customers c
select (select sum(c.small) union all select 1 limit 1) from customers c
select (values (sum(c.small))) from customers c
select (select max((select k.name from countries k where k.code = c.country))) from customers c
select (select sum(o.total + c.small) from orders o where o.customer_id = c.customer_id) from customers c order by c.customer_id
select c.country, (select sum(c.small)) from customers c group by c.country order by 1
select c.customer_id, (select sum(c.small)) from customers c group by c.customer_id order by 1
select c.country, (select max(k.name) from countries k where k.code = c.country and count(c.small) > 2) from customers c group by c.country order by 1
select (select sum(c.small)) from customers c where c.customer_id = 5
select (select sum(c.small)) from customers c where c.customer_id in (1, 2, 3, 4, 5)
select (select sum(c.small)), c.n from (select small, 1 as n from customers) c group by c.n
select count(*) from customers c group by (select 1) having (select sum(c.small)) > 5
select sum((select c.small)) from customers c
select (select count(d.small) from customers d where d.customer_id = c.customer_id) from customers c order by c.customer_id
