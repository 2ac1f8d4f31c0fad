set local role orders_owner;

alter table read_model_generations add column partitions jsonb not null default '{}';
comment on column read_model_generations.partitions is 'into how many each generation is divided; 1 where not named';

-- Keys stay as they are, so that a program which knows of no partitions goes on during the deploy.
comment on column read_models.projection is 'of partitions after the first with their number: revenue_by_day.1';
comment on column read_model_documents.projection is 'as in read_models';
comment on column read_model_heartbeats.projection is 'as in read_models';
