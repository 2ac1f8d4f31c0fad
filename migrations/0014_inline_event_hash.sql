set local role orders_owner;

-- It was called immutable, but convert_to() in it is only stable; PostgreSQL does not put the body of a function that
-- claims more than it may in place of its call, so each event paid for starting a query of its own. What it computes is
-- the same, and the log and its hashes stay as they are.
alter function event_hash stable;
