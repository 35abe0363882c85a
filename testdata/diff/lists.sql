-- Long lists of keys, of which each shard is sent its own: what stands in them, and where they stand.
select * from customers where customer_id in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17) order by customer_id
select count(*) from customers where customer_id in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17)
select * from customers where customer_id in (1, 1, 1, 2, 2, 3, 3, 3, null, 5, 5, 6, NULL, 8, 9, 9, -1, - 2, (3), 99999, 3000000000, 900000000000000000)
select * from customers where customer_id in ('1', '2', ' 3 ', '4', '5', '6', '7', '8', '9', '10', '11', '12', '13', '14', '15', '16', '-0') order by name
select * from customers where customer_id in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, '16', '17')
select * from customers where customer_id in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17.0)
select * from customers where customer_id in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 99999999999999999999)
select * from customers where customer_id in ('1', '2', '3', '4', '5', '6', '7', '8', '9', '10', '11', '12', '13', '14', '15', '16', 'x')
select * from customers where customer_id in ('1', '2', '3', '4', '5', '6', '7', '8', '9', '10', '11', '12', '13', '14', '15', '16', '99999999999999999999') limit 1
select * from orders where customer_id in ('1', '2', '3', '4', '5', '6', '7', '8', '9', '10', '11', '12', '13', '14', '15', '16', '30000000000') limit 1
select order_id from orders where customer_id in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 30000000000) order by 1
select customer_id, count(*), sum(total) from orders where customer_id in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16) and total > 2 group by customer_id order by 1
select customer_id % 3, count(*), avg(total) from orders where customer_id in (20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5) group by 1 order by 1
select c.name, o.order_id from customers c join orders o using (customer_id) where o.customer_id in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16) order by o.order_id limit 7 offset 2
select c.name, o.order_id from customers c left join orders o on o.customer_id = c.customer_id and o.total > 5 where c.customer_id in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16) order by 1, 2
select c.name, o.order_id from customers c left join orders o on o.customer_id = c.customer_id and o.customer_id in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16) order by 1, 2
select * from customers where customer_id not in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16) order by 1
select * from customers where not (customer_id in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)) order by 1
select * from customers where customer_id in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16) or country = 'DE' order by 1
select * from customers where (customer_id in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)) is not true order by 1
select customer_id, customer_id in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16) from customers order by 1
select customer_id, customer_id in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16) from customers where customer_id in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16) order by 2, 1
select * from customers where customer_id in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16) and customer_id in (20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4) order by 1
select * from customers where customer_id in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16) and customer_id not in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17) order by 1
select * from (select customer_id as k, small from customers) s where k in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16) order by 1
select * from (select customer_id as k, count(*) from orders group by 1) s where k in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16) order by 1
select distinct customer_id from orders where customer_id in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16) order by 1
select * from texts where k in ('a', 'b ', 'b', '007', '7', 'é', 'it''s', 'A', '', 'x', 'y', 'z', null, '), (', '--', '/*', 'a') order by v
select * from texts where k in ('a', 'b ', 'b', '007', '7', 'é', 'it''s', 'A', '', 'x', 'y', 'z', E'\x61', '), (', '--', '/*', 'a') order by v
select * from texts where k in ('a', 'b\', 'b', '007', '7', 'é', 'it''s', 'A', '', 'x', 'y', 'z', 'q', '), (', '--', '/*', 'a') order by v
select "Key" from "Odd Table" where "Odd Table"."Key" in /* (1, 2) */ (1, /* one, */ 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16) order by 1
select "Key" from "Odd Table" t where t."Key" in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16) for update
update orders set total = total + 1 where customer_id in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, null)
update orders o set total = o.total + c.small from customers c where c.customer_id = o.customer_id and c.customer_id in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
delete from "Odd Table" where "Key" in (8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23)
select * from "Odd Table" order by 1
select customer_id, sum(total) from orders group by 1 order by 1
