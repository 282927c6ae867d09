"""A virtual SO-101 on a virtual servo bus: what speaks to the real arm speaks to this one, byte for byte.

control_table  its memory: EEPROM, the lock, power cuts
servo          one servo: what a write does, what a read answers, what it does with its motor
settings       what its registers ask of the motor, in ticks and seconds
protection     voltage, encoder, heat, current, overload
motion         its path to a goal, with its speed and acceleration
motor          what the motor can do, and how it warms up
bus            the half-duplex wire that the servos share, with its timing
faults         what can go wrong on that wire
plant          MuJoCo's SO-101 on its table, and the hand that pushes it
hand           scripts and recordings that the hand follows
supply         the power supply
arm            all of these as one thing with one clock
calibration    how servos sit on their joints, and LeRobot's calibration file
port           the pseudo-terminal
control        the verbs of the control socket: to look into the arm, and to break it
server         the process; `client` starts it and asks it; `eeprom` is what it remembers
"""
