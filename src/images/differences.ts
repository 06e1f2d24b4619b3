import { existsSync } from 'node:fs'
import type { Digest } from '../base/digest.ts'
import type { Difference } from '../model/difference.ts'
import type { Layer } from '../model/image.ts'
import type { ImageContext } from './image-context.ts'
import { namedDirs, strayLayerDirs } from './layer-dirs.ts'
import { nameOf, repairLayer } from './verify-images.ts'

/**
 * Rows of layers against their directories and records, as far as a glance tells; what is in the files,
 * `verifyImages` compares.
 * @param isServing pulls may be under way
 */
export function imageDifferences(context: ImageContext, isServing: boolean): Difference[] {
  return [
    ...unfinishedLayers(context, isServing),
    ...damagedLayers(context),
    ...strayDirectories(context),
    ...strayRecords(context),
    ...(isServing ? [] : leftStaging(context)),
  ]
}

function isUnderWay({ layers, leases }: ImageContext, chainId: Digest): boolean {
  return layers.stateOf(chainId) !== undefined || leases.covers(chainId)
}

function unfinishedLayers(context: ImageContext, isServing: boolean): Difference[] {
  const { db } = context
  // A child's number is above its parent's.
  const intents = db.read.layers.extracting().toSorted((a, b) => Number(b.dir) - Number(a.dir))
  return intents
    .filter(({ chainId }) => !isUnderWay(context, chainId))
    .map(({ chainId, dir }) => ({
      kind: 'layer-unfinished',
      subject: chainId,
      found: `its row says that it is being made (directory ${dir}), and nobody is at it`,
      cause: isServing
        ? 'a pull failed and could not record that, as on a full disk'
        : 'the daemon ended during a pull',
      remedy: 'forget the row, as the next start of the daemon does; the next pull fetches the layer',
      fix: async () => {
        if (!isUnderWay(context, chainId)) db.transact('layers given up', tx => tx.layers.delete(chainId))
      },
    }))
}

function damagedLayers(context: ImageContext): Difference[] {
  const { db, layers, snapshots, index } = context
  return db.read.layers.committed().flatMap(layer => {
    const damage = layers.damageOf(layer)
    if (damage === undefined) return []
    const images = db.read.layers.imagesOn(layer.chainId).map(id => nameOf(index.get(id), id))
    const containers = db.read.layers.containersOn(layer.chainId).length
    const path = snapshots.layerPath(layer.dir)
    return [
      {
        kind: 'layer-damaged',
        subject: path,
        found: `layer ${layer.diffId} of ${images.join(', ') || 'no image'} is damaged: ${damage}`,
        cause: existsSync(path)
          ? 'somebody changed it, or the disk lost a part of it'
          : 'somebody removed the directory, or the disk lost it',
        remedy:
          images.length === 0
            ? 'delete it with everything else that nothing needs'
            : `fetch it again from a registry (the next pull of the image does too)${
                containers === 0 ? '' : `; ${containers} containers go on with what is there of the old one`
              }`,
        fix: () => repairDamaged(context, layer, damage),
      },
    ]
  })
}

async function repairDamaged(context: ImageContext, layer: Layer, damage: string): Promise<void> {
  if (context.db.read.layers.imagesOn(layer.chainId).length === 0) return await context.collect()
  context.health.report(layer, damage)
  await repairLayer(context, layer, context.closing)
}

function strayDirectories({ db, snapshots }: ImageContext): Difference[] {
  return strayLayerDirs(db, snapshots).map(dir => ({
    kind: 'layer-stray',
    subject: snapshots.layerPath(dir),
    found: 'a directory of a layer that no row knows',
    cause: 'the database was lost or put back from a backup, or a deleted layer could not be moved away',
    remedy: 'delete it',
    fix: async () => {
      if (strayLayerDirs(db, snapshots).includes(dir)) snapshots.discard(snapshots.layerPath(dir))
    },
  }))
}

/** Records go with their layers; one alone is of no use. That of a damaged layer goes when it is replaced. */
function strayRecords({ db, snapshots }: ImageContext): Difference[] {
  const known = new Set([...snapshots.listLayerDirs(), ...namedDirs(db)])
  return snapshots
    .listRecords()
    .filter(name => !known.has(name))
    .map(name => ({
      kind: 'record-stray',
      subject: snapshots.recordPath(name),
      found: 'the record of a layer that no row knows, and whose directory is not there',
      cause: 'the directory was removed by hand, or the daemon ended between moving the two',
      remedy: 'delete it',
      fix: async () => {
        if (!snapshots.listLayerDirs().includes(name)) snapshots.discard(snapshots.recordPath(name))
      },
    }))
}

function leftStaging({ snapshots }: ImageContext): Difference[] {
  return snapshots.listStaging().map(name => ({
    kind: 'staging-left',
    subject: snapshots.stagedPath(name),
    found: 'a layer that was never unpacked to its end',
    cause: 'the daemon ended during a pull',
    remedy: 'delete it, as the next start of the daemon does',
    fix: async () => snapshots.discard(snapshots.stagedPath(name)),
  }))
}
