-- A whole row where the statement runs on copies: what hangs on its type is the same, or refused.
select pg_typeof(c)::text from customers c, settings s where c.customer_id < 3
select titled(c) from customers c, settings s order by 1
select c.titled from customers c, settings s order by 1
select (c).titled from customers c, settings s order by 1
select sort_of(c), sort_of(c.small), sort_of(s) from customers c, settings s
select sort_of(c.*) from customers c, settings s
select sort_of(x) from (select c as x from customers c) y, settings s
select sort_of(array_agg(c)) from customers c, settings s
select sort_of((select c)) from customers c, settings s
select coalesce(c, null::customers) from customers c, settings s order by c.customer_id, s.name
select case when c.small > 2 then c else null::customers end from customers c, settings s order by c.customer_id, s.name
select c::customers from customers c, settings s order by c.customer_id, s.name
select c::text, row_to_json(c), to_jsonb(c) from customers c, settings s order by c.customer_id, s.name
select c, s from customers c, settings s order by c.customer_id, s.name
select count(c), count(distinct c), max(c.small) from customers c, settings s
select plain.x, sort_of(plain.x) from (select c.small as x from customers c, settings s) plain order by 1
select sort_of(s), count(c) from customers c, settings s group by s.name, s
select sort_of(c), count(*) from customers c group by 1
select sort_of(c), (select count(*) from orders) from customers c
select x.k, n from (select sort_of(c) as k, count(*) as n from customers c group by 1) x, settings s order by s.name
-- Two tables of one name.
select public.things.id, tenant.things.id from public.things right join tenant.things on public.things.id = tenant.things.id - 2
select a.id, b.id from public.things a right join tenant.things b on a.id = b.id - 2
select things.id, t.id from public.things right join tenant.things t on things.id = t.id - 2
select tenant.things.id, (select count(*) from public.things where public.things.id < tenant.things.id) from tenant.things
