-- Under transform_null_equals what an outer join has blanked is found by = NULL.
set transform_null_equals = on
select c.id from things c left join padded o on o.id = c.id and o.id > 2 left join settings h on h.name = c.name where o.id = null order by 1
select s.id from (select o.id from things c left join padded o on o.id = c.id left join settings h on h.name = c.name) s where s.id = null
select c.id from things c left join padded o on o.id = c.id where o.id = null order by 1
select count(*) from things where id = null
set transform_null_equals = off
select c.id from things c left join padded o on o.id = c.id left join settings h on h.name = c.name where o.id = null
