create table cards (card_id bigint primary key, owner text not null);
create function card_count() returns bigint language sql as 'select count(*) from cards';
insert into cards values (1, 'a'), (2, 'b');
