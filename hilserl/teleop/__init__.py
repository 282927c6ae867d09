"""People who take over: what they hold in their hands, and when control is theirs.

events         what a person says of an episode: LeRobot's teleoperation events
intervention   the one state machine: policy, human, handing back
device         what leader, gamepad and keyboard have in common: they make a `Human` of the actor's loop
terminal_keys  keys of this terminal, over ssh as well
remote_keys    keys of another terminal, for an actor that has none
operator       whoever watches and commands from outside: the console, or nobody
keyboard       the arm moved by keys
joystick       a gamepad as Linux tells it
gamepad        the arm moved by it
leader_arm     the leader arm's servos: mirroring, letting go
leader         the arm led by it
played_leader  a virtual leader in the hand of the simulated human
make           which of them a configuration names
record         demonstrations, straight into a dataset
"""
