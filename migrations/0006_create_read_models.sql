set local role orders_owner;

-- Read models that are kept in PostgreSQL. Disposable: the log has it all. What a batch changes is committed together
-- with its checkpoint here.

-- One row a generation: how far it is (null: not begun), and who wrote it.
create table read_models (
    projection   text    not null,
    generation   integer not null check (generation > 0),
    epoch        bigint  not null,
    log_id       uuid,
    position     bigint,
    serve_from   bigint,
    hash         bytea,
    primary key (projection, generation)
) with (fillfactor = 10);  -- room for HOT updates: rewritten by every batch
comment on column read_models.epoch      is 'of the last projector that claimed it; lower ones are refused';
comment on column read_models.serve_from is 'not served before it reaches this position';
comment on column read_models.hash       is 'of the log at `position`';

-- What a projection folds events into; what it sums up of them is in a table of its own.
create table read_model_documents (
    projection  text    not null,
    generation  integer not null,
    document_id text    not null,
    document    json    not null,
    primary key (projection, generation, document_id)
);

create table read_model_heartbeats (
    projection text primary key,
    epoch      bigint      not null,
    worker     text        not null,
    state      text        not null,
    beat_at    timestamptz not null
) with (fillfactor = 50);

-- Orders by the day they were placed (UTC), currency and present status. Amounts in minor units; `numeric`, because a
-- day of the dearest orders the contract allows does not fit a bigint.
create table revenue_by_day (
    generation integer not null,
    day        date    not null,
    currency   text    not null,
    status     text    not null,
    orders     bigint  not null,
    placed     numeric not null,
    paid       numeric not null,
    cancelled  numeric not null,
    primary key (generation, day, currency, status)
);

grant select, insert, update, delete
    on read_models, read_model_documents, read_model_heartbeats, revenue_by_day to orders_projector;
grant select on read_models, read_model_documents, read_model_heartbeats, revenue_by_day to orders_auditor;
