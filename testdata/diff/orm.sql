-- What ORMs write: quoted names, aliases on everything, EXISTS ... LIMIT 1, IN over subqueries, counts of distinct rows,
-- pages, joins for eager loading, JSON for nested rows, one SELECT wrapped in another.
SELECT "customers"."customer_id", "customers"."name", "customers"."country" FROM "customers" WHERE "customers"."customer_id" = 5 LIMIT 21
SELECT (1) AS "a" FROM "customers" WHERE "customers"."country" = 'DE' LIMIT 1
SELECT COUNT(*) AS "__count" FROM "customers" WHERE ("customers"."country" IN ('DE', 'AT') AND NOT ("customers"."small" IS NULL))
SELECT "orders"."customer_id", COUNT("orders"."order_id") AS "n" FROM "orders" GROUP BY "orders"."customer_id" HAVING COUNT("orders"."order_id") > 3 ORDER BY "n" DESC, 1
SELECT COUNT(*) FROM (SELECT DISTINCT "customers"."country" AS "col1" FROM "customers") subquery
SELECT "orders"."order_id", "customers"."name" FROM "orders" INNER JOIN "customers" ON ("orders"."customer_id" = "customers"."customer_id") WHERE "customers"."name" LIKE 'n1%' ORDER BY "orders"."order_id" ASC LIMIT 10 OFFSET 5
SELECT "customers"."customer_id" FROM "customers" WHERE EXISTS(SELECT 1 AS "a" FROM "orders" U0 WHERE (U0."customer_id" = ("customers"."customer_id") AND U0."total" > 4) LIMIT 1) ORDER BY 1
SELECT "customers"."customer_id" FROM "customers" WHERE NOT ("customers"."customer_id" IN (SELECT U1."customer_id" FROM "orders" U1 WHERE U1."total" IS NULL)) ORDER BY "customers"."customer_id"
SELECT "customers"."customer_id", (SELECT U0."order_id" FROM "orders" U0 WHERE U0."customer_id" = ("customers"."customer_id") ORDER BY U0."order_id" DESC LIMIT 1) AS "newest" FROM "customers" ORDER BY 1
SELECT "customers"."customer_id", SUM("orders"."total") AS "spent", CASE WHEN SUM("orders"."total") > 10 THEN 'gold' ELSE 'tin' END AS "tier" FROM "customers" LEFT OUTER JOIN "orders" ON ("customers"."customer_id" = "orders"."customer_id") GROUP BY "customers"."customer_id" ORDER BY 1
SELECT anon_1.customers_customer_id AS anon_1_customers_customer_id, orders_1.order_id AS orders_1_order_id FROM (SELECT customers.customer_id AS customers_customer_id, customers.name AS customers_name FROM customers ORDER BY customers.customer_id LIMIT 5 OFFSET 2) AS anon_1 LEFT OUTER JOIN orders AS orders_1 ON anon_1.customers_customer_id = orders_1.customer_id ORDER BY 1, 2
SELECT orders.customer_id AS orders_customer_id, orders.order_id AS orders_order_id FROM orders WHERE orders.customer_id IN (1, 2, 3, 9) ORDER BY orders.customer_id, orders.order_id
SELECT count(*) AS count_1 FROM (SELECT customers.customer_id AS a, customers.name AS b FROM customers WHERE customers.small > 2) AS anon_1
SELECT "t0"."customer_id" AS "t0_c0", "t0"."name" AS "t0_c1", "t1"."order_id" AS "t1_c1" FROM "customers" "t0" LEFT JOIN "orders" "t1" ON "t1"."customer_id" = "t0"."customer_id" WHERE ("t0"."customer_id" = 1) ORDER BY "t1"."order_id"
SELECT "public"."customers"."customer_id", "public"."customers"."name" FROM "public"."customers" WHERE ("public"."customers"."country" = 'DE' AND ("public"."customers"."customer_id") IN (SELECT "t1"."customer_id" FROM "public"."orders" AS "t1" WHERE ("t1"."total" > 3 AND "t1"."customer_id" IS NOT NULL))) ORDER BY "public"."customers"."customer_id" ASC LIMIT 3 OFFSET 0
SELECT DISTINCT "customers"."customer_id", "customers"."name" AS alias_0 FROM "customers" LEFT OUTER JOIN "orders" ON "orders"."customer_id" = "customers"."customer_id" WHERE "orders"."total" > 1 ORDER BY "customers"."name" DESC LIMIT 4
select c1_0.customer_id, c1_0.country, o1_0.customer_id, o1_0.order_id from customers c1_0 left join orders o1_0 on c1_0.customer_id = o1_0.customer_id where c1_0.customer_id in (4, 5, 6) order by 1, 4
select count(c1_0.customer_id) from customers c1_0 where lower(c1_0.name) like '%1%' escape ''
select distinct c1_0.country from customers c1_0 where c1_0.country is not null order by c1_0.country offset 0 rows fetch first 2 rows only
SELECT "customers".*, "o"."n" FROM "customers" INNER JOIN (SELECT "customer_id", count(*) AS "n" FROM "orders" GROUP BY "customer_id") AS "o" ON "o"."customer_id" = "customers"."customer_id" WHERE "o"."n" > 3 ORDER BY "customers"."customer_id"
SELECT "customer_id", "name" FROM "customers" AS "customer" WHERE ("customer"."customer_id" > 3 AND "customer"."customer_id" < 9) OR "customer"."name" = 'n12' ORDER BY "customer"."customer_id" ASC
SELECT coalesce(json_agg(t.x), '[]'::json)::text FROM (SELECT row_to_json(s.*) AS x FROM (SELECT customer_id, name FROM customers ORDER BY customer_id LIMIT 3) s) t
SELECT c.customer_id, coalesce((SELECT json_agg(json_build_object('id', o.order_id, 'total', o.total) ORDER BY o.order_id) FROM orders o WHERE o.customer_id = c.customer_id), '[]'::json)::text AS orders FROM customers c ORDER BY c.customer_id LIMIT 4
SELECT 1 AS one FROM "customers" WHERE "customers"."name" = 'n3' AND "customers"."customer_id" != 4 LIMIT 1
SELECT "customers"."country", AVG("customers"."small") AS "average_small" FROM "customers" GROUP BY "customers"."country" ORDER BY "customers"."country" NULLS FIRST
SELECT max("orders"."order_id") AS "maximum_order_id" FROM "orders" INNER JOIN "customers" ON "customers"."customer_id" = "orders"."customer_id" WHERE "customers"."country" = 'AT'
SELECT * FROM "customers" WHERE (customer_id, name) > (7, 'a') ORDER BY customer_id, name LIMIT 3
SELECT "customer_id", ROW_NUMBER() OVER (PARTITION BY "country" ORDER BY "customer_id") AS "row" FROM "customers" ORDER BY "country" NULLS LAST, 2
