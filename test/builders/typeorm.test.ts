/** TypeORM joins the request's transaction. */
import { DataSource, type EntityManager, EntitySchema } from 'typeorm'
import { describeBuilder, type Queries } from './contract.js'

interface Item {
  id: number
  n: number
}
const item = new EntitySchema<Item>({
  name: 'item',
  columns: { id: { type: 'int', primary: true }, n: { type: 'int' } },
})

function queries(manager: EntityManager): Queries {
  return {
    number: async id => (await manager.findOneByOrFail(item, { id })).n,
    set: (id, n) => manager.save(item, { id, n }),
    increment: id => manager.increment(item, { id }, 'n', 1),
    transaction: work => manager.transaction(inner => work(queries(inner))),
    atLevel: (level, work) =>
      manager.transaction(level === 'serializable' ? 'SERIALIZABLE' : 'READ COMMITTED', inner =>
        work(queries(inner)),
      ),
    stream: async () => {
      for await (const row of await manager.createQueryBuilder(item, 'i').stream()) expect(row).toBeDefined()
    },
  }
}

describeBuilder('TypeORM', async (pool, db) => {
  const source = new DataSource({
    type: 'mysql',
    database: db.name,
    entities: [item],
    // The pool is the application's: ending it is not TypeORM's business.
    driver: { createPool: () => pool },
  })
  await source.initialize()
  return { ambient: queries(source.manager) }
})
