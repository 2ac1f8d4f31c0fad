set local role orders_owner;

-- Streams that a read model shows only up to an event that it could not apply.
create table read_model_parked (
    projection  text    not null,
    generation  integer not null,
    document_id text    not null,
    position    bigint  not null,  -- of that event
    poison      json    not null,  -- the event, the error and its traceback: shared/read_models/poison.py
    primary key (projection, generation, document_id)
);

alter table read_models add column parking text not null default '';
comment on column read_models.parking is 'names the state of what is parked; another one after each change of it';
alter table read_models add column retries text[] not null default '{}';
comment on column read_models.retries is 'documents that somebody wants tried again; * for all';

alter table read_model_heartbeats add column reason text not null default '';
alter table read_model_heartbeats add column poison json;
comment on column read_model_heartbeats.reason is 'what keeps a projector that is stuck';
comment on column read_model_heartbeats.poison is 'the event, where it is one';

grant select, insert, update, delete on read_model_parked to orders_projector;
grant select on read_model_parked to orders_auditor;
