set local role orders_owner;

-- The keys that personal data is sealed with, each of one subject: a stream, such as customer-17850. A key is wrapped by
-- a key-encryption key that the database does not hold. A subject has one key at a time. Erasing the subject destroys it,
-- and its row stays as a tombstone: a key of the next generation is only made for a subject that is registered anew.
create table subject_keys (
    key_id     text        primary key check (octet_length(key_id) = 16),
    subject    text        not null check (octet_length(subject) <= 200),
    generation integer     not null check (generation > 0),
    wrapped    bytea       check (octet_length(wrapped) between 1 and 128),
    wrapped_by text        check (octet_length(wrapped_by) = 16),
    erasure    bigint,
    erased_at  timestamptz,
    unique (subject, generation),
    check ((wrapped is null) = (erasure is not null) and (wrapped is null) = (wrapped_by is null)
           and (wrapped is null) = (erased_at is not null))
);
comment on column subject_keys.wrapped    is 'null: destroyed';
comment on column subject_keys.wrapped_by is 'id of the key-encryption key';
comment on column subject_keys.erasure    is 'position of the event that destroyed it';
create index subject_keys_by_erasure on subject_keys (erasure) where erasure is not null;

-- Those that seal and those that open. Auditors see which keys there are, not the keys.
grant select on subject_keys to orders_command, orders_query;
grant select (key_id, subject, generation, wrapped_by, erasure, erased_at) on subject_keys to orders_auditor;

-- Makes the subject's key, unless it has one; where it had one that was destroyed, only anew. The caller reads which one
-- that is.
create function make_subject_key(key_id text, subject text, wrapped bytea, wrapped_by text, anew boolean) returns void
language sql
security definer
set search_path = pg_catalog, pg_temp
begin atomic
    insert into public.subject_keys (key_id, subject, generation, wrapped, wrapped_by)
    select make_subject_key.key_id, make_subject_key.subject, coalesce(max(k.generation), 0) + 1,
           make_subject_key.wrapped, make_subject_key.wrapped_by
    from public.subject_keys k where k.subject = make_subject_key.subject
    having count(*) = 0 or (anew and bool_and(k.wrapped is null))
    on conflict do nothing;
end;
revoke all on function make_subject_key from public;
grant execute on function make_subject_key to orders_command;

-- Destroys the key of the subject in the transaction that appends the event of its erasure: there is neither without the
-- other, and no service's role can destroy a key in another way.
create function destroy_subject_key() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update public.subject_keys
    set wrapped = null, wrapped_by = null, erasure = new.position, erased_at = new.recorded_at
    where subject = new.stream_id and wrapped is not null;
    return null;
end
$$;
revoke all on function destroy_subject_key from public;

create trigger events_of_erasure after insert on events
    for each row when (new.event_type = 'CustomerErased') execute function destroy_subject_key();
alter table events enable always trigger events_of_erasure;
