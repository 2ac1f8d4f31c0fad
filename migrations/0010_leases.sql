set local role orders_owner;

-- Sessions that hold the advisory lock of one of these leases and are no projector's, or no process runner's for its lease:
-- ours cannot work then. Ours are of their role, or of one that may act as it, and say so in their application's name.
create function foreign_lease_holders(leases text[]) returns table (
    lease text, pid integer, username text, application text, client text, since timestamptz
)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
begin atomic
    select w.name, a.pid, a.usename::text, a.application_name, coalesce(host(a.client_addr), 'local'), a.backend_start
    from (select name, hashtextextended(name, 0) as key from unnest(leases) name) w
    join pg_locks l on (l.classid::bigint << 32) | l.objid::bigint = w.key
    join pg_stat_activity a on a.pid = l.pid
    where l.locktype = 'advisory' and l.objsubid = 1 and l.granted
      and l.database = (select oid from pg_database where datname = current_database())
      and not case w.name
          when 'processes' then a.application_name = 'orders-processes' and pg_has_role(a.usesysid, 'orders_command', 'member')
          else a.application_name = 'orders-projector' and pg_has_role(a.usesysid, 'orders_projector', 'member')
      end
    order by w.name, a.pid;
end;
revoke all on function foreign_lease_holders from public;
grant execute on function foreign_lease_holders to orders_command, orders_projector, orders_auditor;
