import { Guest } from './guest.ts'
import { programImage } from './image.ts'

/*
 * What all guests share and two processes must not make at once: the packed program and the frozen machine. Prints the
 * path of the program's image, which goes into BERTH_GUEST_PROGRAM.
 */
process.env.BERTH_GUEST_PROGRAM = await programImage()
await Guest.prepare()
process.stdout.write(process.env.BERTH_GUEST_PROGRAM)
