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
