set local role orders_owner;

-- Left to itself PostgreSQL plans the statements inside anew for every group for as long as the first groups of a
-- connection were small: a third of what a small group costs. They have one good plan, by the indexes.
alter function append_events set plan_cache_mode = force_generic_plan;
