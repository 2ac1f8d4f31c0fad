set local role orders_owner;

-- What projectors keep in PostgreSQL: about every read model, and the documents of those that are stored here. Disposable:
-- the log has it all. The effect of a batch is committed together with its checkpoint.

-- A projector that becomes active takes the next epoch. Each store keeps the highest epoch that wrote to a read model and
-- refuses lower ones, so a projector that was paused while another took over can change nothing.
create sequence projector_epochs as bigint;
grant usage on sequence projector_epochs to orders_projector;

-- The generations of a read model. Without a row, generation 1 is the only one.
create table read_model_generations (
    projection text    primary key,
    live       integer not null default 1,    -- the one that queries are answered from
    previous   integer,                       -- the one before it, kept for a rollback
    building   integer,                       -- the one that is built beside it
    last       integer not null default 1,    -- the highest number ever given
    partitions jsonb   not null default '{}'  -- how many each generation has; 1 where it is not named
);

-- One row a generation and partition of a read model that is stored here. Partitions after the first carry their number
-- in the projection's name: revenue_by_day.1
create table read_models (
    projection   text    not null,
    generation   integer not null check (generation > 0),
    epoch        bigint  not null,
    log_id       uuid,
    position     bigint,
    ready_at   bigint,
    hash         bytea,
    code         integer,
    parked_revision      text    not null default '',
    retries      text[]  not null default '{}',
    primary key (projection, generation)
) with (fillfactor = 10);  -- space for HOT updates: every batch rewrites its row
comment on column read_models.epoch      is 'of the last projector that claimed it; lower ones are refused';
comment on column read_models.position   is 'the checkpoint; null before it was begun';
comment on column read_models.ready_at is 'not served before it reaches this position';
comment on column read_models.hash       is 'of the log at `position`';
comment on column read_models.code       is 'version of the projection that applied its events; no other version continues it';
comment on column read_models.parked_revision    is 'revision of what is parked; changes with it';
comment on column read_models.retries    is 'documents that an operator wants tried again; * for all';

create table read_model_documents (
    projection  text    not null,  -- as in read_models
    generation  integer not null,
    document_id text    not null,
    document    json    not null,
    primary key (projection, generation, document_id)
);

-- Documents that a read model shows only up to an event that it could not apply.
create table read_model_parked (
    projection  text    not null,
    generation  integer not null,
    document_id text    not null,
    position    bigint  not null,  -- of that event
    poison      json    not null,  -- the event, the error and its traceback: shared/read_models/poison.py
    primary key (projection, generation, document_id)
);

create table read_model_heartbeats (
    projection text        primary key,  -- as in read_models
    epoch      bigint      not null,
    worker     text        not null,
    state      text        not null,
    beat_at    timestamptz not null,
    reason     text        not null default '',  -- why a projector is stuck
    poison     json                              -- the event, if one is the reason
) with (fillfactor = 50);

-- The documents of these ids, null where there is none, in the order of the ids: to the one that reaches `max_bytes`. It
-- stops reading there.
create function read_model_documents_of(of_projection text, of_generation integer, ids text[], max_bytes bigint)
returns table (document_id text, document json)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off  -- a plan cached while the table was still empty must not scan it once it is not
set plan_cache_mode = force_generic_plan
as $$
declare
    bytes bigint := 0;
begin
    for document_id, document in
        select wanted.id, d.document
        from unnest(ids) with ordinality wanted (id, nr)
        left join public.read_model_documents d
            on d.projection = of_projection and d.generation = of_generation and d.document_id = wanted.id
        order by wanted.nr
    loop
        return next;
        bytes := bytes + coalesce(octet_length(document::text), 0);
        exit when bytes >= max_bytes;
    end loop;
end
$$;
revoke all on function read_model_documents_of from public;
grant execute on function read_model_documents_of to orders_projector;

grant select, insert, update, delete
    on read_model_generations, read_models, read_model_documents, read_model_parked, read_model_heartbeats
    to orders_projector;
grant select
    on read_model_generations, read_models, read_model_documents, read_model_parked, read_model_heartbeats
    to orders_auditor;

-- How far each partition of a read model is, wherever it is stored. Its projector reports it with every heartbeat, for the
-- command service, which has no access to read models.
create table projection_progress (
    projection  text        not null,
    partition   integer     not null default 0,
    log_id      uuid,
    position    bigint      not null,
    ready_at  bigint      not null,
    reported_at timestamptz not null,
    primary key (projection, partition)
) with (fillfactor = 10);  -- space for HOT updates: every heartbeat rewrites its row
comment on column projection_progress.log_id     is 'null: there is no read model';
comment on column projection_progress.ready_at is 'not served before it reaches this position';

grant select, insert, update, delete on projection_progress to orders_projector;
grant select on projection_progress to orders_command, orders_auditor;
