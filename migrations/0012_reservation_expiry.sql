set local role orders_owner;

-- The position up to which reservations that fell due have expired: command_service/reservation_expiry.py.
create table reservation_expiry (
    only_row boolean primary key default true check (only_row),
    position bigint  not null
);
insert into reservation_expiry (position) values (0);
grant select on reservation_expiry to orders_command;

-- Records that they have expired up to a position; never goes back.
create function finish_reservation_expiry(up_to bigint) returns void
language sql
security definer
set search_path = pg_catalog, pg_temp
begin atomic
    update public.reservation_expiry set "position" = greatest("position", up_to);
end;
revoke all on function finish_reservation_expiry from public;
grant execute on function finish_reservation_expiry to orders_command;
