import type { Command } from 'commander'
import { client, type Work } from '../client-command.ts'
import { givenFlags } from '../config-flags.ts'

/** `berth image …` */
export function addImage(program: Command, choose: (work: Work) => void): void {
  const image = program.command('image').description('images on this node').helpCommand(false)
  addReading(image, choose)
  addNaming(image, choose)
  addKeeping(image, choose)
}

const IMAGE = 'a name, an id or the beginning of one'

function addReading(image: Command, choose: (work: Work) => void): void {
  client(image, 'list', 'list the images, damaged ones too')
    .argument('[image]', IMAGE)
    .action((name: string | undefined, options, command: Command) =>
      choose(async streams =>
        (await import('./list.ts')).listImages(name, givenFlags(command), options, streams),
      ),
    )
  client(image, 'inspect', 'print everything about an image, as JSON')
    .argument('<image>', IMAGE)
    .action((name: string, _, command: Command) =>
      choose(async streams =>
        (await import('./inspect.ts')).inspectImage(name, givenFlags(command), streams),
      ),
    )
}

function addNaming(image: Command, choose: (work: Work) => void): void {
  client(image, 'tag', 'give an image another name')
    .argument('<image>', IMAGE)
    .argument('<name>', 'the new name')
    .action((name: string, other: string, _, command: Command) =>
      choose(async streams => (await import('./tag.ts')).tagImage(name, other, givenFlags(command), streams)),
    )
  client(image, 'rm', 'remove images with all their names; containers keep what they stand on')
    .argument('<image...>', IMAGE)
    .option('--name', 'remove the given names only, not the images')
    .action((names: string[], options, command: Command) =>
      choose(async streams =>
        (await import('./remove.ts')).removeImages(names, givenFlags(command), options, streams),
      ),
    )
}

function addKeeping(image: Command, choose: (work: Work) => void): void {
  client(image, 'verify', 'compare what is on disk with what was unpacked')
    .argument('[image...]', `${IMAGE}; none: every layer`)
    .option('--repair', 'fetch damaged layers again')
    .action((names: string[], options, command: Command) =>
      choose(async streams =>
        (await import('./verify.ts')).verifyImages(names, givenFlags(command), options, streams),
      ),
    )
}
