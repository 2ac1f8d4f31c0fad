-- Whoever becomes the active projector takes the next epoch. Redis remembers the highest epoch that wrote to a read
-- model and refuses lower ones, so a projector that was paused while another took over can change nothing.
create sequence projector_epochs as bigint;
