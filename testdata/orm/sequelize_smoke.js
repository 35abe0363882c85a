// Sequelize on the sharded shop: a table of its own, create, read, update, delete, a transaction.
const { Sequelize, DataTypes, Op } = require("sequelize");
const db = new Sequelize(process.env.DSN, { dialect: "postgres", logging: false });
const check = (what, got, want) => {
  if (JSON.stringify(got) !== JSON.stringify(want)) throw new Error(`${what}: ${JSON.stringify(got)}, want ${JSON.stringify(want)}`);
  console.log("ok", what);
};
(async () => {
  const Customer = db.define("Customer", {
    customer_id: { type: DataTypes.BIGINT, primaryKey: true }, name: DataTypes.TEXT, email: DataTypes.TEXT, country: DataTypes.TEXT, created_at: DataTypes.DATE,
  }, { tableName: "customers", timestamps: false });
  const Tag = db.define("Tag", { label: DataTypes.TEXT });
  const Mark = db.define("Mark", { label: DataTypes.TEXT });
  Tag.hasMany(Mark);
  Mark.belongsTo(Tag);
  await Tag.sync();
  await Mark.sync();
  const t = await Tag.create({ label: "a" });
  await t.createMark({ label: "m" });
  check("relation", (await Tag.findOne({ include: Mark })).Marks.length, 1);
  const row = (i) => ({ customer_id: 990000 + i, name: "s" + i, email: "x", country: "DE", created_at: "2026-01-01" });
  await Customer.bulkCreate([...Array(20).keys()].map(row));
  check("find by key", (await Customer.findByPk(990003)).name, "s3");
  await Customer.update({ name: "changed" }, { where: { customer_id: 990003 } });
  check("update", (await Customer.findByPk(990003)).name, "changed");
  check("count", await Customer.count({ where: { customer_id: { [Op.gte]: 990000 } } }), 20);
  check("in over shards", (await Customer.findAll({ where: { customer_id: [990001, 990002, 990003] }, order: ["customer_id"] })).length, 3);
  await db.transaction(async (tx) => {
    await Customer.destroy({ where: { customer_id: { [Op.gte]: 990000 } }, transaction: tx });
    throw new Error("undo");
  }).catch((e) => check("thrown", e.message, "undo"));
  check("rolled back", await Customer.count({ where: { customer_id: { [Op.gte]: 990000 } } }), 20);
  await Customer.destroy({ where: { customer_id: { [Op.gte]: 990000 } } });
  await Mark.drop();
  await Tag.drop();
  await db.close();
  console.log("done");
})().catch((e) => { console.error(e); process.exit(1); });
