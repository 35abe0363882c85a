"""Django on the sharded shop: its migrations, create, read, update, delete, relations, a transaction."""
import datetime, os
from urllib.parse import urlparse

u = urlparse(os.environ["DSN"])
import django
from django.conf import settings

settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": u.path[1:], "USER": u.username, "PASSWORD": u.password, "HOST": u.hostname, "PORT": u.port}},
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"], USE_TZ=True, DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()
from django.core.management import call_command
from django.db import connection, models, transaction
from django.contrib.auth.models import User, Group


def check(what, got, want):
    if got != want:
        raise AssertionError(f"{what}: {got!r}, want {want!r}")
    print("ok", what)


class Customer(models.Model):
    customer_id = models.BigIntegerField(primary_key=True)
    name = models.TextField()
    email = models.TextField()
    country = models.TextField()
    created_at = models.DateTimeField()

    class Meta:
        app_label, db_table, managed = "shop", "customers", False


call_command("migrate", verbosity=0)
check("migrations", "auth_user" in connection.introspection.table_names(), True)
g = Group.objects.create(name="staff")
ada = User.objects.create_user("ada", password="x")
ada.groups.add(g)
check("many to many", list(User.objects.filter(groups__name="staff").values_list("username", flat=True)), ["ada"])
now = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
Customer.objects.create(customer_id=980000, name="d0", email="x", country="DE", created_at=now)
Customer.objects.bulk_create([Customer(customer_id=980000 + i, name=f"d{i}", email="x", country="DE", created_at=now) for i in range(1, 20)])
check("get", Customer.objects.get(customer_id=980004).name, "d4")
Customer.objects.filter(customer_id=980004).update(name="changed")
check("update", Customer.objects.get(pk=980004).name, "changed")
check("count", Customer.objects.filter(customer_id__gte=980000).count(), 20)
check("in over shards", sorted(c.pk for c in Customer.objects.filter(customer_id__in=[980001, 980002, 980003])), [980001, 980002, 980003])
check("order and slice", [c.pk for c in Customer.objects.filter(customer_id__gte=980000).order_by("customer_id")[2:5]], [980002, 980003, 980004])
try:
    with transaction.atomic():
        Customer.objects.filter(customer_id__gte=980000).delete()
        raise KeyError
except KeyError:
    pass
check("rolled back", Customer.objects.filter(customer_id__gte=980000).count(), 20)
with transaction.atomic():
    try:
        with transaction.atomic():
            Customer.objects.create(customer_id=980001, name="twice", email="x", country="DE", created_at=now)
    except django.db.IntegrityError:
        pass
    check("savepoint", Customer.objects.filter(pk=980001).count(), 1)
Customer.objects.filter(customer_id__gte=980000).delete()
check("deleted", Customer.objects.filter(customer_id__gte=980000).exists(), False)
print("done")
