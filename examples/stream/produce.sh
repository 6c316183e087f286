#!/bin/sh
# Adds orders to the Redis stream "orders": produce.sh NUMBER [OPTION OF redis-cli]…
# The fields of an entry are the fields of the event.
set -eu

number=${1:?how many orders? produce.sh NUMBER}
shift
awk -v number="$number" 'BEGIN {
    split("north south east west", regions)
    split("tea coffee cocoa", products)
    split("4.50 12.00 3.25", prices)
    for (order = 0; order < number; order++) {
        product = order % 3 + 1
        printf "XADD orders * region %s product %s quantity %d price %s\n",
            regions[order % 4 + 1], products[product], order % 5 + 1, prices[product]
    }
}' | redis-cli -e "$@" >/dev/null
