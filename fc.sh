. /tmp/rev2/env.sh
T="--steps 20 --looks 2 --seeds 0 --hidden 4 --origins 5 --draws 50"
cd /tmp/rev2
