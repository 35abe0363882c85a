-- A whole row where the statement runs on copies: what hangs on its type is the same, or refused.
select pg_typeof(c)::text from customers c, settings s where c.customer_id < 3
select titled(c) from customers c, settings s order by 1
select c::text, row_to_json(c), to_jsonb(c) from customers c, settings s order by c.customer_id, s.name
select c, s from customers c, settings s order by c.customer_id, s.name
select count(c), count(distinct c), max(c.small) from customers c, settings s
select plain.x, sort_of(plain.x) from (select c.small as x from customers c, settings s) plain order by 1
select sort_of(s), count(c) from customers c, settings s group by s.name, s
select sort_of(c), count(*) from customers c group by 1
select sort_of(c), (select count(*) from orders) from customers c
-- Two tables of one name.
select public.things.id, tenant.things.id from public.things right join tenant.things on public.things.id = tenant.things.id - 2
select a.id, b.id from public.things a right join tenant.things b on a.id = b.id - 2
select things.id, t.id from public.things right join tenant.things t on things.id = t.id - 2
select things.id, (select count(*) from public.things where public.things.id < 4) from tenant.things
select public.things.id, (select count(*) from countries) from public.things, settings
select tenant.things.id, (select count(*) from public.things where public.things.id < tenant.things.id) from tenant.things
