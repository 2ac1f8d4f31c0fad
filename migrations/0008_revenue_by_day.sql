set local role orders_owner;

-- The read model revenue_by_day: orders by the day they were placed (UTC), currency and present status. Amounts in minor
-- units; `numeric`, because a day of the dearest orders that the contract allows does not fit a bigint.
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

grant select, insert, update, delete on revenue_by_day to orders_projector;
grant select on revenue_by_day to orders_auditor;
