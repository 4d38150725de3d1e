"""Fill an empty database with the rows that standard input holds as JSON; texts as the command `seed` writes them."""
import json
import sys
from django.core.management import call_command
from django.core.management.base import BaseCommand
from app.models import Post, PostComment, PostLike, User, UserFollow

class Command(BaseCommand):
    def handle(self, **_):
        call_command("migrate", run_syncdb=True, verbosity=0)
        rows = json.load(sys.stdin)
        User.objects.bulk_create([User(username=f"u{i}", email=f"u{i}@example.com", password="!") for i in range(1, rows["users"] + 1)], batch_size=500)
        Post.objects.bulk_create([Post(user_id=u, title=f"t{i}", description="d" * 120) for i, u in enumerate(rows["authors"])], batch_size=500)
        UserFollow.objects.bulk_create([UserFollow(user_id=u, followee_id=f) for u, f in rows["follows"]], batch_size=500)
        PostLike.objects.bulk_create([PostLike(post_id=p, user_id=u) for p, u in rows["likes"]], batch_size=500)
        PostComment.objects.bulk_create([PostComment(post_id=p, user_id=u, comment_text="c" * 60) for p, u in rows["comments"]], batch_size=500)
