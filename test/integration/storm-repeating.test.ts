/** A client that makes the very same call again until it is answered. */
import { testSmallStorm } from '../storm/small-storm.ts'

testSmallStorm('repeats')
