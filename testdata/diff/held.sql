-- Keys that their columns round, or cut blanks of.
insert into short_keys values ('q     ', 1), ('abc', 2), ('a  ', 3)
insert into short_keys values ('four', 4)
insert into short_keys values ('é      ', 5) on conflict (k) do update set v = 50
insert into round_keys values (1.005, 1)
insert into round_keys values (2.004, 2), (-3.335, 3), (10, 4), (20.499, 5)
insert into round_keys values (1000, 1)
insert into round_keys select k + 100.001, v from round_keys where v = 4
insert into round_keys select total, 7 from orders where order_id in (2, 3)
insert into round_times values ('2026-01-01 00:00:00.6+00', 1), ('2026-01-01 00:00:05.4+00', 2)
merge into round_keys using (values (50.01)) s (k) on round_keys.k = s.k when not matched then insert values (50.005, 9)
merge into short_keys using (select 1) s on k = 'm  ' when not matched then insert values ('m     ', 9)
update round_keys set k = k + 0.005 where v = 2
update round_keys set k = 30.005 where k = 10
update short_keys set k = 'z      ' where k = 'abc'
select k, v from short_keys order by k collate "C"
select k, v from round_keys order by k
select k at time zone 'UTC', v from round_times order by k
select v from round_keys where k = 1.01
select v from round_keys where k = 1.005
select v from short_keys where k = 'q  '
