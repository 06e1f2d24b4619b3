import type { Command } from 'commander'
import { client, type Work } from '../client-command.ts'
import { givenFlags } from '../config-flags.ts'

/** `berth image …` */
export function addImage(program: Command, choose: (work: Work) => void): void {
  const image = program.command('image').description('images on this node').helpCommand(false)
  addReading(image, choose)
  addNaming(image, choose)
  addKeeping(image, choose)
  addMoving(image, choose)
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
    .action((name: string, other: string, options, command: Command) =>
      choose(async streams =>
        (await import('./tag.ts')).tagImage(name, other, givenFlags(command), options, streams),
      ),
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
  client(image, 'gc', 'delete what no image, container or pull needs')
    .option('--dry-run', 'only tell what that is, and what keeps the rest')
    .option('--prune', 'images that no container stands on too, unless they are pinned')
    .action((options, command: Command) =>
      choose(async streams =>
        (await import('./gc.ts')).collectGarbage(givenFlags(command), options, streams),
      ),
    )
  client(image, 'why', 'tell what keeps an image or layer, and how large it is alone and shared')
    .argument('<object>', `${IMAGE}, or the digest of a layer or manifest`)
    .action((object: string, options, command: Command) =>
      choose(async streams =>
        (await import('./why.ts')).explainImage(object, givenFlags(command), options, streams),
      ),
    )
}

function addMoving(image: Command, choose: (work: Work) => void): void {
  client(image, 'import', 'import the images of an archive: an OCI layout, or what docker save writes')
    .argument('<file>', 'a tar that may be compressed, the directory of an OCI layout, - for standard input')
    .option('--tag <name>', "the image's name, for an archive with one image")
    .action((file: string, options, command: Command) =>
      choose(async streams =>
        (await import('./import.ts')).importImages(file, givenFlags(command), options, streams),
      ),
    )
  client(image, 'export', 'write images to an archive that is an OCI layout and can be loaded by Docker')
    .argument('<image...>', IMAGE)
    .option('-o, --output <file>', 'where to; standard output by default')
    .action((names: string[], options, command: Command) =>
      choose(async streams =>
        (await import('./export.ts')).exportImages(names, givenFlags(command), options, streams),
      ),
    )
}
