-- Names with dots, quotes, spaces, keywords, upper case, 63 bytes, and letters that are not ASCII.
select * from "odd.schema"."odd.name" where "key.col" = 5
select "it's ""said""", "group" from "odd.schema"."odd.name" order by "key.col"
select "odd.name"."a.b", "odd.schema"."odd.name"."UPPER" from "odd.schema"."odd.name" where "odd.name"."key.col" in (1, 2, 3)
select "group", count(*), sum("a.b"), max("UPPER") from "odd.schema"."odd.name" group by "group" order by 2, 1
select "o.o"."a.b" as "x.y", count(distinct "it's ""said""") as "c.d" from "odd.schema"."odd.name" "o.o" group by "o.o"."a.b" order by "x.y"
select "r.r"."na""me", count(*) from "odd.schema"."odd.name" "o.o" left join "ref.odd" "r.r" on "r.r"."co.de" = "o.o"."group" group by 1 order by 1, 2
select a."key.col", b."key.col" from "odd.schema"."odd.name" a join "odd.schema"."odd.name" b on a."a.b" = b."key.col" order by 1, 2
select "o.o"."key.col", "h.h"."v.w" from "odd.schema"."odd.name" "o.o" join "home.odd" "h.h" on "h.h"."table" = "o.o"."a.b" order by 1, 2
select rank() over (partition by "o.o"."group" order by "o.o"."key.col") as "r.r", "o.o"."it's ""said""" from "odd.schema"."odd.name" "o.o" order by 1, 2
select * from "odd.schema"."odd.view" where "k.v" = 9
select sum("n.m") from "odd.schema"."odd.view"
select c.name, "o.o"."a.b" from customers c join "odd.schema"."odd.name" "o.o" on "o.o"."key.col" = c.customer_id order by c.customer_id
select c.name, "o.o"."a.b" from customers c join "odd.schema"."odd.name" "o.o" on "o.o"."a.b" = c.customer_id order by 1, 2
with "w.w" as (select "key.col" as "k.k", "a.b" from "odd.schema"."odd.name" where "a.b" > 1) select count(*), sum("w.w"."a.b") from "w.w" join "home.odd" on "table" = "w.w"."a.b"
select string_agg("it's ""said""", ',' order by "it's ""said""") from "odd.schema"."odd.name"
select * from (select distinct on ("group") "group", "key.col" from "odd.schema"."odd.name" order by "group", "key.col" desc) "d.d" order by 1, 2
select "o.o" from "odd.schema"."odd.name" "o.o" where "key.col" = 3
select avg("a.b"), stddev("a.b") from "odd.schema"."odd.name"
select * from "Ünï cödé, with spaces und «noch mehr» Buchstaben bis 63 B" where "ключ с пробелами, ""кавычками"" и т.д.x" = 5 order by 1
select count(*), "select" from "Ünï cödé, with spaces und «noch mehr» Buchstaben bis 63 B" group by "select" order by "select"
select l."select", o."group" from "Ünï cödé, with spaces und «noch mehr» Buchstaben bis 63 B" l join "odd.schema"."odd.name" o on o."key.col" = l."ключ с пробелами, ""кавычками"" и т.д.x" order by 1, 2
select l."select", o."group" from "Ünï cödé, with spaces und «noch mehr» Buchstaben bis 63 B" l join "odd.schema"."odd.name" o on o."a.b" = l."ключ с пробелами, ""кавычками"" и т.д.x" order by 1, 2
select max("x y") from "Ünï cödé, with spaces und «noch mehr» Buchstaben bis 63 B" having count(*) > 1
