drop index cards_owner;
