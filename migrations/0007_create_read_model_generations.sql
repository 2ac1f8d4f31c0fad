set local role orders_owner;

-- Which generations of a read model there are. Without a row, generation 1 is the only one.
create table read_model_generations (
    projection text    primary key,
    live       integer not null default 1,  -- the one that queries are answered from
    previous   integer,                     -- the one before it, kept for a rollback
    building   integer,                     -- the one that is built beside it
    last       integer not null default 1   -- the highest number ever given
);
alter table read_models add column code integer;
comment on column read_models.code is 'version of the projection''s code that folds it; no other version may go on';
update read_models set code = 1 where log_id is not null;

grant select, insert, update, delete on read_model_generations to orders_projector;
grant select on read_model_generations to orders_auditor;
