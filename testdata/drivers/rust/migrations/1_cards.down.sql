drop function card_count();
drop table cards;
