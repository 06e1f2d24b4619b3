/** A client that looks before it calls again, as kubelet does. */
import { testSmallStorm } from '../storm/small-storm.ts'

testSmallStorm('looks')
