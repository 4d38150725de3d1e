"""The item that is always there. Run twice, this would fail: names are unique."""


def up(migrator, db):
    db.execute_sql("INSERT INTO item (name) VALUES ('first')")
