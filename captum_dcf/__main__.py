from captum_dcf.cli import main

main()
