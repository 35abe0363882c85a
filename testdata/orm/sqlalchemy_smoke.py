"""SQLAlchemy and Alembic on the sharded shop: migrations, create, read, update, delete, relations, a transaction."""
import datetime, os, sys
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column, relationship, selectinload

dsn = os.environ["DSN"].replace("postgres://", "postgresql+psycopg://")


def check(what, got, want):
    if got != want:
        raise AssertionError(f"{what}: {got!r}, want {want!r}")
    print("ok", what)


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customers"
    customer_id = mapped_column(sa.BigInteger, primary_key=True)
    name = mapped_column(sa.Text)
    email = mapped_column(sa.Text)
    country = mapped_column(sa.Text)
    created_at = mapped_column(sa.DateTime(timezone=True))
    orders = relationship("Order", primaryjoin="Customer.customer_id == foreign(Order.customer_id)", viewonly=True)


class Order(Base):
    __tablename__ = "orders"
    order_id = mapped_column(sa.BigInteger, primary_key=True)
    customer_id = mapped_column(sa.BigInteger, primary_key=True)
    total = mapped_column(sa.Numeric)


class Note(Base):
    __tablename__ = "notes"
    id = mapped_column(sa.BigInteger, sa.Identity(), primary_key=True)
    body = mapped_column(sa.Text)


engine = sa.create_engine(dsn)
with engine.connect() as c, c.begin():
    op = Operations(MigrationContext.configure(c))
    op.create_table("notes", sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True), sa.Column("body", sa.Text))
with engine.connect() as c, c.begin():
    op = Operations(MigrationContext.configure(c))
    op.add_column("notes", sa.Column("extra", sa.Integer))
    op.create_index("notes_body", "notes", ["body"])
check("the inspector sees the tables", {"customers", "orders", "notes"} <= set(sa.inspect(engine).get_table_names()), True)
now = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
with Session(engine) as s:
    s.add_all([Customer(customer_id=970000 + i, name=f"a{i}", email="x", country="DE", created_at=now) for i in range(20)])
    s.add(Note(body="one"))
    s.commit()
    check("get", s.get(Customer, 970003).name, "a3")
    c = s.get(Customer, 970003)
    c.name = "changed"
    s.commit()
    check("update", s.scalar(sa.select(Customer.name).where(Customer.customer_id == 970003)), "changed")
    check("in over shards", sorted(s.scalars(sa.select(Customer.customer_id).where(Customer.customer_id.in_([970001, 970002, 970003])))), [970001, 970002, 970003])
    check("count", s.scalar(sa.select(sa.func.count()).select_from(Customer).where(Customer.customer_id >= 970000)), 20)
    check("relation", len(s.get(Customer, 1).orders) == s.scalar(sa.select(sa.func.count()).select_from(Order).where(Order.customer_id == 1)), True)
    got = s.scalars(sa.select(Customer).where(Customer.customer_id.in_([1, 2, 3])).options(selectinload(Customer.orders))).all()
    check("eager relation", len(got), 3)
    try:
        with s.begin_nested():
            s.execute(sa.text("select 1/0"))
    except sa.exc.DBAPIError:
        pass
    s.execute(sa.delete(Customer).where(Customer.customer_id >= 970010, Customer.customer_id < 980000))
    s.rollback()
    check("rolled back", s.scalar(sa.select(sa.func.count()).select_from(Customer).where(Customer.customer_id >= 970000)), 20)
    s.execute(sa.delete(Customer).where(Customer.customer_id >= 970000))
    s.commit()
with engine.connect() as c, c.begin():
    Operations(MigrationContext.configure(c)).drop_table("notes")
print("done")
