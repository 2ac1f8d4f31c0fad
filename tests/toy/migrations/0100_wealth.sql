set local role orders_owner;

-- The read model wealth: owners by the number of their wallets. `generation` is the engine's.
create table wealth (
    generation integer not null,
    wallets    text    not null,
    owners     bigint  not null,
    total      numeric not null,
    primary key (generation, wallets)
);

grant select, insert, update, delete on wealth to orders_projector;
grant select on wealth to orders_auditor;
