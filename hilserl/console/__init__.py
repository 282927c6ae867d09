"""The operator's console: one page from which a person watches the arm, takes over, says what was a success, and stops it.

In the actor's process, which never waits for the rest:

operator   what the loops ask, and the thread that looks after it
commands   what a person wants: hold, pause, success, another source
drive      the page's wish to move, and the dead-man
simulated_stop  the emergency stop of what has no arm
person     who may take over: the page, in front of whom the configuration names; exchanged at run time
tally      the episode and the session in numbers
telemetry  arm, learner and link in numbers, alarms in words
show       which pictures the pages get, and when
pictures   frames into shared memory
wire       the socket between the two processes
open       starts the console's process, and ends it

`serving/` is the other process: the web server. It encodes pictures at the lowest priority, ends with the actor, and knows
neither torch nor MuJoCo.
"""
