"""A virtual SO-101 on a virtual servo bus: what speaks to the real arm speaks to this one, byte for byte.

registers      the control table of one STS3215: names, addresses, sizes, factory values
servo          one servo: what a write does, what a read answers, what survives a power cut
protection     its protections: voltage, encoder, heat, current, overload
motion         its path generator: from where it is to its goal, with its speed and acceleration
packets        Feetech's protocol 0: bytes to packets and back
bus            the half-duplex wire that the servos share, with its timing
faults         what can go wrong on that wire
plant          the mechanics and electrics: MuJoCo's SO-101, the hand that pushes it, the supply
arm            servos, plant and bus as one thing with one clock
hand           scripts and recordings that move an arm by hand
port           the pseudo-terminal
server         the process; `control` is the socket that plays faults; `client` starts and asks it
calibration    LeRobot's calibration file of a virtual arm
"""
