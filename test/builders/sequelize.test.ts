/** Sequelize joins the request's transaction. */
import { promisify } from 'node:util'
import { DataTypes, Sequelize, type Transaction } from 'sequelize'
import { describeBuilder, type Queries } from './contract.js'

function queries(sequelize: Sequelize, transaction: Transaction | null = null): Queries {
  const item = sequelize.model('item')
  const where = (id: number): { where: { id: number }; transaction: Transaction | null } => ({
    where: { id },
    transaction,
  })
  return {
    number: async id => {
      const row = await item.findOne({ ...where(id), rejectOnEmpty: true })
      return row.get('n') as number
    },
    set: (id, n) => item.update({ n }, where(id)),
    increment: id => item.increment('n', where(id)),
    transaction: work => sequelize.transaction({ transaction }, inner => work(queries(sequelize, inner))),
    atLevel: (level, work) =>
      sequelize.transaction({ isolationLevel: level.toUpperCase() as Transaction.ISOLATION_LEVELS }, inner =>
        work(queries(sequelize, inner)),
      ),
  }
}

describeBuilder(
  'Sequelize',
  pool => {
    const getConnection = promisify(pool.getConnection)
    const sequelize = new Sequelize({ dialect: 'mysql', logging: false })
    Object.assign(sequelize.connectionManager, {
      getConnection: () => getConnection(),
      releaseConnection: pool.releaseConnection,
      destroyConnection: async (connection: { destroy(): void }) => connection.destroy(),
    })
    sequelize.define(
      'item',
      { id: { type: DataTypes.INTEGER, primaryKey: true }, n: DataTypes.INTEGER },
      { freezeTableName: true, timestamps: false },
    )
    return { ambient: queries(sequelize), close: () => sequelize.close() }
  },
  { streams: false },
)
